package backstore_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

// benchSize is how much of this machine's files the benchmarks compress.
const benchSize = 64 << 20

// files returns n bytes of files of this machine, each padded to 4 KiB as a
// file system does: binaries, libraries, texts.
func files(b *testing.B, n int) []byte {
	b.Helper()
	data := make([]byte, 0, n)
	for _, root := range []string{"/usr/bin", "/usr/lib/python3", "/usr/share", "/usr/lib/x86_64-linux-gnu", "/usr/lib"} {
		taken := 0
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || taken > n/4 {
				return nil //nolint:nilerr // whatever can be read will do
			}
			content, err := os.ReadFile(path)
			if err != nil || len(content) > n/8 || len(data)+len(content)+4096 > n {
				return nil //nolint:nilerr // whatever can be read will do
			}
			data = append(data, content...)
			data = append(data, make([]byte, (4096-len(content)%4096)%4096)...)
			taken += len(content)
			return nil
		})
	}
	if len(data) < n/2 {
		b.Skipf("found only %d bytes of files", len(data))
	}
	return data
}

// target is an empty file in memory.
type target struct{ bytes.Buffer }

func (f *target) WriteAt(p []byte, off int64) (int, error) { return copy(f.Bytes()[off:], p), nil }

// bare decodes the blocks of a ZFile with nothing but the library.
type bare struct {
	blocks    [][]byte
	blockSize int
	algorithm zfile.Algorithm
	zstd      *zstd.Decoder
}

func newBare(b *testing.B, raw []byte) *bare {
	b.Helper()
	z, err := zfile.Open(b.Context(), memory(raw))
	if err != nil {
		b.Fatal(err)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	x := &bare{blockSize: z.BlockSize(), algorithm: z.Algorithm(), zstd: d}
	for off := int64(0); off < z.Size(); off += int64(x.blockSize) {
		at, n := z.Extent(off, 1)
		x.blocks = append(x.blocks, raw[at:at+n-4])
	}
	return x
}

func (x *bare) decode(b *testing.B, i int, dst []byte) {
	var err error
	if x.algorithm == zfile.LZ4 {
		_, err = lz4.UncompressBlock(x.blocks[i], dst)
	} else {
		_, err = x.zstd.DecodeAll(x.blocks[i], dst[:0])
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReader reads a device from a blob in memory, through tar, ZFile
// with checksums and LSMT. "of-bare" is its speed as a part of what the bare
// library reaches on the blocks that the same reads touch, measured in turns.
func BenchmarkReader(b *testing.B) {
	data := files(b, benchSize)
	for _, c := range []struct {
		algorithm zfile.Algorithm
		blockSize int
	}{{zfile.LZ4, 4096}, {zfile.ZSTD, 4096}, {zfile.ZSTD, 32768}} {
		opts := zfile.Options{Algorithm: c.algorithm, BlockSize: c.blockSize}
		var z, layer target
		var stream bytes.Buffer
		if err := lsmt.CommitDisk(b.Context(), &stream, memory(data), lsmt.DiskOptions{KeepZeros: true}); err != nil {
			b.Fatal(err)
		}
		if _, err := zfile.Compress(&z, bytes.NewReader(stream.Bytes()), opts); err != nil {
			b.Fatal(err)
		}
		if err := backstore.WriteLayer(&layer, opts, func(w io.Writer) error {
			_, err := w.Write(stream.Bytes())
			return err
		}); err != nil {
			b.Fatal(err)
		}
		image, err := backstore.Open(b.Context(), []blob.ReaderAt{memory(layer.Bytes())})
		if err != nil {
			b.Fatal(err)
		}
		bare := newBare(b, z.Bytes())
		for _, size := range []int{1 << 20, 4096} {
			b.Run(fmt.Sprintf("%v/%dKiB-blocks/%dKiB-reads", c.algorithm, c.blockSize>>10, size>>10), func(b *testing.B) {
				benchReads(b, image, bare, size)
			})
		}
	}
}

func benchReads(b *testing.B, image *lsmt.Image, bare *bare, size int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rnd := rand.New(rand.NewPCG(1, 1))
	p, into := make([]byte, size), make([]byte, size+2*bare.blockSize)
	offs := make([]int64, 64)
	var reader, ratios []float64
	b.SetBytes(int64(size * len(offs)))
	b.ReportAllocs()
	for b.Loop() {
		for i := range offs {
			offs[i] = rnd.Int64N(image.Size()/int64(size)) * int64(size)
		}
		start := cpuTime(b)
		for _, off := range offs {
			if _, err := image.ReadAt(b.Context(), p, off); err != nil {
				b.Fatal(err)
			}
		}
		took := cpuTime(b) - start
		start = cpuTime(b)
		for _, off := range offs {
			first := (int(off) + lsmt.HeaderSize) / bare.blockSize
			last := (int(off) + lsmt.HeaderSize + size - 1) / bare.blockSize
			for i := first; i <= last; i++ {
				bare.decode(b, i, into[(i-first)*bare.blockSize:][:bare.blockSize])
			}
		}
		reader = append(reader, took.Seconds()/float64(len(offs)))
		ratios = append(ratios, float64(cpuTime(b)-start)/float64(took))
	}
	// Medians of processor time, because there is other work on the machine.
	slices.Sort(reader)
	slices.Sort(ratios)
	read := reader[len(reader)/2]
	b.ReportMetric(float64(size)/read/1e9, "GB/s")
	b.ReportMetric(1/read, "reads/s")
	b.ReportMetric(ratios[len(ratios)/2], "of-bare")
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns how long this thread has been running.
func cpuTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkWriter compresses with one worker.
func BenchmarkWriter(b *testing.B) {
	data := files(b, benchSize/4)
	for _, opts := range []zfile.Options{
		{Algorithm: zfile.LZ4, BlockSize: 4096, Workers: 1},
		{Algorithm: zfile.ZSTD, BlockSize: 4096, Workers: 1},
		{Algorithm: zfile.ZSTD, BlockSize: 32768, Workers: 1},
	} {
		b.Run(fmt.Sprintf("%v/%dKiB-blocks", opts.Algorithm, opts.BlockSize>>10), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var took time.Duration
			var size int64
			for b.Loop() {
				start := cpuTime(b)
				n, err := zfile.Compress(io.Discard, bytes.NewReader(data), opts)
				if err != nil {
					b.Fatal(err)
				}
				took, size = took+cpuTime(b)-start, n
			}
			b.ReportMetric(float64(len(data))*float64(b.N)/took.Seconds()/1e6, "MB/s")
			b.ReportMetric(float64(size)/float64(len(data)), "of-size")
			b.ReportMetric(0, "ns/op")
		})
	}
}
