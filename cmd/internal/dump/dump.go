// Package dump writes a device into a file or a stream. A file gets holes
// wherever the device reads as zeros, so that a disk of 64 GiB with 100 MB in
// it takes 100 MB.
package dump

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/cmd/internal/newfile"
	"github.com/reprise-containers/reprise/cmd/internal/pipeline"
)

const (
	// pieceSize is how many bytes of the device are read at once.
	pieceSize = 2 << 20
	// grain is the unit in which zeros become holes: the block size of file
	// systems, and a divisor of pieceSize.
	grain = 4096
)

// Config says how to dump.
type Config struct {
	// Parallel is the number of pieces read at a time; 8 if 0.
	Parallel int
	// Force allows to replace a file that exists.
	Force bool
	// Progress is told about bytes of the device as they are done, those
	// that are known to be zeros not included. Optional.
	Progress func(bytes int64)
}

func (c Config) withDefaults() Config {
	if c.Parallel <= 0 {
		c.Parallel = 8
	}
	if c.Progress == nil {
		c.Progress = func(int64) {}
	}
	return c
}

// Mapped returns how many bytes of the device have data: what Progress adds up to.
func Mapped(img *lsmt.Image) int64 {
	n := int64(0)
	for e := range extents(img) {
		n += e.end - e.off
	}
	return n
}

// File writes img to a new file at path. The file appears there when it is
// complete and on disk.
func File(ctx context.Context, img *lsmt.Image, path string, cfg Config) error {
	cfg = cfg.withDefaults()
	return newfile.Write(path, cfg.Force, func(f *os.File) error { return fill(ctx, img, f, cfg) })
}

// fill writes all pieces that are not zeros.
func fill(ctx context.Context, img *lsmt.Image, f *os.File, cfg Config) error {
	if err := f.Truncate(img.Size()); err != nil {
		return err
	}
	write := func(ctx context.Context, e extent) (int64, error) {
		p, err := read(ctx, img, e)
		if err != nil {
			return 0, err
		}
		for run := range nonZero(p) {
			if _, err := f.WriteAt(p[run.off:run.end], e.off+run.off); err != nil {
				return 0, err
			}
		}
		return e.end - e.off, nil
	}
	return pipeline.Run(ctx, cfg.Parallel, extents(img), write, func(n int64) error {
		cfg.Progress(n)
		return nil
	})
}

// Stream writes all bytes of img, zeros too, to w.
func Stream(ctx context.Context, img *lsmt.Image, w io.Writer, cfg Config) error {
	cfg = cfg.withDefaults()
	at := int64(0)
	type piece struct {
		extent
		p []byte
	}
	err := pipeline.Run(ctx, cfg.Parallel, extents(img),
		func(ctx context.Context, e extent) (piece, error) {
			p, err := read(ctx, img, e)
			return piece{e, p}, err
		},
		func(p piece) error {
			if err := zeros(w, p.off-at); err != nil {
				return err
			}
			at = p.end
			cfg.Progress(int64(len(p.p)))
			_, err := w.Write(p.p)
			return err
		})
	if err != nil {
		return err
	}
	return zeros(w, img.Size()-at)
}

// zeros writes n zero bytes.
func zeros(w io.Writer, n int64) error {
	buf := make([]byte, min(n, pieceSize))
	for n > 0 {
		m, err := w.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

func read(ctx context.Context, img *lsmt.Image, e extent) ([]byte, error) {
	p := make([]byte, e.end-e.off)
	if n, err := img.ReadAt(ctx, p, e.off); n < len(p) {
		return nil, fmt.Errorf("reading %d bytes at offset %d of the device: %w", len(p), e.off, err)
	}
	return p, nil
}

// extent is a range [off, end) in bytes.
type extent struct{ off, end int64 }

// extents returns what has data, in order: pieces that begin and end at
// multiples of the grain, so that none shares a block of the file with another.
func extents(img *lsmt.Image) iter.Seq[extent] {
	return func(yield func(extent) bool) {
		var run extent
		flush := func(upto int64) bool {
			for run.off < upto {
				e := extent{run.off, min(upto, run.off-run.off%pieceSize+pieceSize)}
				if !yield(e) {
					return false
				}
				run.off = e.end
			}
			return true
		}
		for s := range img.Segments() {
			if s.Zeroed {
				continue
			}
			off := s.Offset * lsmt.SectorSize
			end := min((s.Offset+s.Length)*lsmt.SectorSize, img.Size())
			if off >= img.Size() {
				break
			}
			off -= off % grain
			end = min(end+(grain-end%grain)%grain, img.Size())
			if off > run.end {
				if !flush(run.end) {
					return
				}
				run = extent{off, end}
			}
			run.end = max(run.end, end)
		}
		flush(run.end)
	}
}

// nonZero returns the parts of p, in whole grains, that are not all zeros.
func nonZero(p []byte) iter.Seq[extent] {
	return func(yield func(extent) bool) {
		start := -1
		for at := 0; at < len(p); at += grain {
			if !allZero(p[at:min(at+grain, len(p))]) {
				if start < 0 {
					start = at
				}
				continue
			}
			if start >= 0 && !yield(extent{int64(start), int64(at)}) {
				return
			}
			start = -1
		}
		if start >= 0 {
			yield(extent{int64(start), int64(len(p))})
		}
	}
}

// zeroGrain is what a grain of zeros looks like.
var zeroGrain [grain]byte

// allZero reports whether p, at most a grain, is zeros.
func allZero(p []byte) bool { return bytes.Equal(p, zeroGrain[:len(p)]) }
