package zfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// TestStream: what is produced in pieces of any size becomes what a Writer makes
// of it, with any number of workers.
func TestStream(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 256 << 10, 256<<10 + 1, 5<<20 + 777} {
		data := content(size)
		for _, opts := range []zfile.Options{
			{Workers: 1}, {Workers: 3}, {Algorithm: zfile.ZSTD, BlockSize: 32 << 10, Workers: 2},
			{FinalHeader: true, NoChecksums: true}, {BlockSize: 512},
		} {
			t.Run(fmt.Sprintf("%d bytes %+v", size, opts), func(t *testing.T) {
				if opts.BlockSize == 512 && size > 4096 {
					t.Skip("the format can't have this")
				}
				rng := rand.New(rand.NewPCG(1, uint64(size)))
				var f file
				n, err := zfile.Stream(&f, opts, func(w io.Writer) error {
					for p := data; len(p) > 0; {
						k := min(1+rng.IntN(400_000), len(p))
						if n, err := w.Write(p[:k]); n != k || err != nil {
							return fmt.Errorf("wrote %d of %d bytes: %w", n, k, err)
						}
						p = p[k:]
					}
					return nil
				})
				if err != nil || n != int64(f.Len()) {
					t.Fatalf("%d bytes of %d, %v", n, f.Len(), err)
				}
				if !bytes.Equal(f.Bytes(), compress(t, data, opts)) {
					t.Error("differs from what a Writer makes")
				}
			})
		}
	}
}

// limited takes so many bytes.
type limited struct{ left int }

var errFull = errors.New("full")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestStreamFails: the first error counts, wherever it happens, and who produces
// is told to stop.
func TestStreamFails(t *testing.T) {
	noise := make([]byte, 8<<20)
	rng := rand.NewChaCha8([32]byte{})
	_, _ = rng.Read(noise) // never fails
	forever := func(w io.Writer) error {
		for {
			if _, err := w.Write(noise); err != nil {
				return err
			}
		}
	}
	for _, left := range []int{0, 511, 512, 1 << 20, 20 << 20} {
		if _, err := zfile.Stream(&limited{left}, zfile.Options{}, forever); !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v", left, err)
		}
	}
	// The end does not fit.
	if _, err := zfile.Stream(&limited{600}, zfile.Options{}, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 4096))
		return err
	}); !errors.Is(err, errFull) {
		t.Errorf("room for a block: %v", err)
	}
	boom := errors.New("boom")
	for _, n := range []int{0, 1, len(noise)} {
		_, err := zfile.Stream(io.Discard, zfile.Options{}, func(w io.Writer) error {
			_, err := w.Write(noise[:n])
			return errors.Join(err, boom)
		})
		if !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if _, err := zfile.Stream(io.Discard, zfile.Options{BlockSize: 1000}, forever); err == nil {
		t.Error("blocks of 1000 bytes are no error")
	}
	// What compresses too badly for the format is an error of a late stretch.
	if _, err := zfile.Stream(io.Discard, zfile.Options{BlockSize: 64 << 10}, forever); err == nil || errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("blocks that are too large: %v", err)
	}
}
