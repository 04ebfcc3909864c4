package backstore_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// BenchmarkCommit commits a layer of files of this machine to a file: to a tar
// archive around a ZFile, which is what overlaybd-commit makes, and to a blob, with
// its chunk table and digest. "of-bare" is its speed as a part of reading and
// compressing the same bytes with the bare library on as many processors, measured
// in turns: by the clock, and by what processors worked for it, the kernel's part
// included.
func BenchmarkCommit(b *testing.B) {
	data := files(b, benchSize)
	dir := b.TempDir()
	name := filepath.Join(dir, "layer")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	if err := lsmt.CommitDisk(b.Context(), f, memory(data), lsmt.DiskOptions{KeepZeros: true}); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	file, err := lsmt.OpenFile(name)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	l, err := backstore.OpenLayer(b.Context(), file)
	if err != nil {
		b.Fatal(err)
	}
	for _, opts := range []zfile.Options{
		{Algorithm: zfile.LZ4, BlockSize: 4096},
		{Algorithm: zfile.ZSTD, BlockSize: 4096},
		{Algorithm: zfile.ZSTD, BlockSize: 32768},
	} {
		for _, blob := range []bool{false, true} {
			what := map[bool]string{false: "archive", true: "blob"}[blob]
			b.Run(fmt.Sprintf("%v/%dKiB-blocks/%s", opts.Algorithm, opts.BlockSize>>10, what), func(b *testing.B) {
				benchCommit(b, l, name, opts, blob)
			})
		}
	}
}

// benchCommit commits l, whose file is name, in turns with the bare library.
func benchCommit(b *testing.B, l *lsmt.Layer, name string, opts zfile.Options, blob bool) {
	var used, wall, cpu []float64
	for b.Loop() {
		ours := stopwatch()
		commitTo(b, l, name+".committed", opts, blob)
		ours.stop()
		bare := stopwatch()
		compressBare(b, name, opts)
		bare.stop()
		used, wall, cpu = append(used, ours.cpu), append(wall, bare.wall/ours.wall), append(cpu, bare.cpu/ours.cpu)
	}
	for _, v := range [][]float64{used, wall, cpu} {
		slices.Sort(v)
	}
	b.ReportMetric(float64(l.Size())/used[len(used)/2]/1e6, "MB/s-a-core")
	b.ReportMetric(wall[len(wall)/2], "of-bare")
	b.ReportMetric(cpu[len(cpu)/2], "of-bare-a-core")
	b.ReportMetric(0, "ns/op")
}

// watch is a stopwatch: seconds by the clock, and those that processors worked
// for this process.
type watch struct{ wall, cpu float64 }

func stopwatch() *watch {
	return &watch{wall: float64(time.Now().UnixNano()) / 1e9, cpu: processSeconds()}
}

func (w *watch) stop() {
	w.wall, w.cpu = float64(time.Now().UnixNano())/1e9-w.wall, processSeconds()-w.cpu
}

func processSeconds() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano()).Seconds()
}

func commitTo(b *testing.B, l *lsmt.Layer, name string, opts zfile.Options, blob bool) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	commit := func(w io.Writer) error { return l.Commit(b.Context(), w, lsmt.Identity{}) }
	if blob {
		_, err = backstore.WriteBlob(b.Context(), f, opts, commit)
	} else {
		err = backstore.WriteLayer(f, opts, commit)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// compressBare reads a file and compresses its blocks, on all processors.
func compressBare(b *testing.B, name string, opts zfile.Options) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	workers := int64(runtime.GOMAXPROCS(0))
	part := (st.Size()/workers/int64(opts.BlockSize) + 1) * int64(opts.BlockSize)
	for i := range workers {
		wg.Go(func() {
			r := io.NewSectionReader(f, i*part, part)
			if err := compressPart(r, opts); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

func compressPart(r io.Reader, opts zfile.Options) error {
	var c lz4.Compressor
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(64<<10))
	if err != nil {
		return err
	}
	buf, out := make([]byte, 1<<20), make([]byte, 2*opts.BlockSize)
	for {
		n, err := io.ReadFull(r, buf)
		for p := buf[:n]; len(p) > 0; {
			k := min(opts.BlockSize, len(p))
			if opts.Algorithm == zfile.LZ4 {
				if _, err := c.CompressBlock(p[:k], out); err != nil {
					return err
				}
			} else {
				out = e.EncodeAll(p[:k], out[:0])
			}
			p = p[k:]
		}
		if err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil
			}
			return err
		}
	}
}
