package zfile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/backstore/zfile"
)

// cached is a blob whose local copy is damaged: reads from damaged on return a
// flipped byte until that is discarded, healthy times.
type cached struct {
	memory
	damaged   int64
	healthy   int // discards until the byte is right; -1: never
	mu        sync.Mutex
	discarded []string
	reads     int
}

func (c *cached) Discard(off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discarded = append(c.discarded, fmt.Sprint(off, "+", n))
}

func (c *cached) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	n, err := c.memory.ReadAt(ctx, p, off)
	if at := c.damaged - off; at >= 0 && at < int64(n) && (c.healthy < 0 || len(c.discarded) < c.healthy) {
		p[at] ^= 0x10
	}
	return n, err
}

// TestDamage: a block that is damaged in a cache is discarded and read again,
// twice at most, by itself.
func TestDamage(t *testing.T) {
	data := content(200000)
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		raw := compress(t, data, zfile.Options{Algorithm: algorithm, BlockSize: 8192})
		for healthy := -1; healthy <= 3; healthy++ {
			t.Run(fmt.Sprint(algorithm, healthy), func(t *testing.T) {
				c := &cached{memory: raw, healthy: healthy, damaged: -1}
				z, err := zfile.Open(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				start, length := z.BlockExtent(7)
				c.damaged, c.reads = start+3, 0
				p := make([]byte, len(data))
				n, err := z.ReadAt(t.Context(), p, 0)
				rereads := healthy
				discards := rereads
				if healthy < 0 || healthy > 2 {
					rereads, discards = 2, 3 // the last bad copy is not kept either
					checkDamage(t, err, start, length)
				} else if err != nil || n != len(data) || !bytes.Equal(p, data) {
					t.Errorf("%d, %v, or other bytes", n, err)
				}
				if c.reads != 1+rereads || len(c.discarded) != discards {
					t.Errorf("%d reads, discarded %q", c.reads, c.discarded)
				}
				for _, d := range c.discarded {
					if d != fmt.Sprint(start, "+", length) {
						t.Errorf("discarded %s, block is %d+%d", d, start, length)
					}
				}
				// Blocks beside the damaged one are not affected, parts of it are.
				if _, err := z.ReadAt(t.Context(), p[:100], 8*8192); err != nil {
					t.Error(err)
				}
				if _, err := z.ReadAt(t.Context(), p[:100], 7*8192+5); (err != nil) != (healthy < 0 || healthy > 2 && len(c.discarded) < healthy) {
					t.Errorf("part of the block: %v", err)
				}
			})
		}
	}
}

func checkDamage(t *testing.T, err error, start, length int64) {
	t.Helper()
	var d *zfile.Damage
	if !errors.As(err, &d) || d.Block != 7 || d.Offset != start || d.Length != length || d.Blob != "memory" {
		t.Fatalf("error %v", err)
	}
	if !strings.HasPrefix(d.Error(), fmt.Sprintf("zfile memory: block 7 (%d bytes at offset %d) is damaged: checksum is", length, start)) {
		t.Errorf("error %q", d)
	}
}

// TestSourceErrors are not damage: nothing is discarded.
func TestSourceErrors(t *testing.T) {
	raw := compress(t, content(50000), zfile.Options{})
	broken := errors.New("broken")
	c := &failing{memory: raw}
	z, err := zfile.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.err = broken
	var d *zfile.Damage
	if _, err := z.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, broken) || errors.As(err, &d) {
		t.Errorf("error %v", err)
	}
	c.err = io.EOF
	if _, err := z.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that ends early: %v", err)
	}
	if _, err := z.ReadAt(t.Context(), make([]byte, 10), -1); err == nil {
		t.Error("read at a negative offset")
	}
	if _, err := zfile.Open(t.Context(), c); err == nil {
		t.Error("opened from a source that fails")
	}
}

type failing struct {
	memory
	err error
}

func (f *failing) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.memory.ReadAt(ctx, p, off)
}

// TestIndexBomb: headers that claim more than the blob can have cost nothing;
// those of a blob that claims to be large cost one piece.
func TestIndexBomb(t *testing.T) {
	good := compress(t, content(50000), zfile.Options{FinalHeader: true})
	for _, claim := range []uint64{14, 1 << 20, 999_999_999, 1_000_000_001, 1 << 61, 1<<64 - 1} {
		head := bytes.Clone(good)
		head[32] &^= 1 << 4 // no digest
		binary.LittleEndian.PutUint64(head[48:], claim)
		binary.LittleEndian.PutUint64(head[56:], claim*4096)
		if _, err := zfile.Open(t.Context(), memory(head)); err == nil {
			t.Errorf("a claim of %d blocks was accepted", claim)
		}
		if claim > 1_000_000_000 {
			continue
		}
		binary.LittleEndian.PutUint64(head[40:], 512+claim*5)
		huge := &huge{memory: head}
		if _, err := zfile.Open(t.Context(), huge); err == nil {
			t.Errorf("a claim of %d blocks was accepted", claim)
		}
		if huge.largest > 1<<20 {
			t.Errorf("a claim of %d blocks costs %d bytes before anything arrived", claim, huge.largest)
		}
	}
}

// huge claims to have a terabyte.
type huge struct {
	memory
	largest int
}

func (h *huge) Size() int64 { return 1 << 40 }

func (h *huge) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	h.largest = max(h.largest, len(p))
	return h.memory.ReadAt(ctx, p, off)
}

// TestDecompressionBomb: a block that decodes to more than it should is an
// error, not memory.
func TestDecompressionBomb(t *testing.T) {
	for _, algorithm := range []zfile.Algorithm{zfile.LZ4, zfile.ZSTD} {
		large := compress(t, make([]byte, 65536), zfile.Options{Algorithm: algorithm, BlockSize: 65536})
		z, err := zfile.Open(t.Context(), memory(large))
		if err != nil {
			t.Fatal(err)
		}
		at, n := z.BlockExtent(0)
		var f file
		w, err := zfile.NewWriter(&f, zfile.Options{Algorithm: algorithm, BlockSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := w.WriteStored(large[at:at+n], 4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if z, err = zfile.Open(t.Context(), memory(f.Bytes())); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{100, 4096, 3 * 4096} {
			var d *zfile.Damage
			if _, err := z.ReadAt(t.Context(), make([]byte, n), 0); !errors.As(err, &d) {
				t.Errorf("%v: reading %d bytes: %v", algorithm, n, err)
			}
		}
	}
}

// present is a blob of which only [from, to) is local.
type present struct {
	memory
	from, to int64
}

func (p present) Present(off, n int64) bool { return off >= p.from && off+n <= p.to }

// TestPresence: a range is local if all blocks it touches are.
func TestPresence(t *testing.T) {
	data := content(100000)
	raw := compress(t, data, zfile.Options{})
	z, err := zfile.Open(t.Context(), memory(raw))
	if err != nil {
		t.Fatal(err)
	}
	from, length := z.Extent(5*4096, 3*4096)
	z, err = zfile.Open(t.Context(), present{raw, from, from + length})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n int64
		want   bool
	}{
		{5 * 4096, 3 * 4096, true},
		{5*4096 + 1, 1, true},
		{8*4096 - 1, 1, true},
		{8*4096 - 1, 2, false},
		{5*4096 - 1, 2, false},
		{0, 1, false},
		{5 * 4096, 0, true},
		{1 << 40, 10, true}, // nothing to read there
	} {
		if got := z.Present(c.off, c.n); got != c.want {
			t.Errorf("present(%d, %d) is %v", c.off, c.n, got)
		}
	}
}

// TestParallelReaders reads overlapping ranges from many goroutines.
func TestParallelReaders(t *testing.T) {
	data := content(1 << 20)
	z, err := zfile.Open(t.Context(), memory(compress(t, data, zfile.Options{Algorithm: zfile.ZSTD, BlockSize: 32768})))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			p := make([]byte, 4096)
			for i := range 200 {
				off := (g*7919 + i*4099) % (len(data) - len(p))
				if _, err := z.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
					t.Errorf("reading at %d: %v, or other bytes", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestNothingBehind: a read writes nothing behind p, whatever room there is.
func TestNothingBehind(t *testing.T) {
	data := content(300000)
	for _, opts := range []zfile.Options{
		{Algorithm: zfile.LZ4}, {Algorithm: zfile.ZSTD}, {Algorithm: zfile.ZSTD, BlockSize: 32768},
	} {
		z, err := zfile.Open(t.Context(), memory(compress(t, data, opts)))
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off+70000 < len(data); off += 4096 {
			for _, n := range []int{100, 4096, 8192, 9000, 65536} {
				room := bytes.Repeat([]byte{0xaa}, n+200)
				if _, err := z.ReadAt(t.Context(), room[:n], int64(off)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(room[:n], data[off:off+n]) || !bytes.Equal(room[n:], bytes.Repeat([]byte{0xaa}, 200)) {
					t.Fatalf("%v: reading %d bytes at %d wrote something else", opts.Algorithm, n, off)
				}
			}
		}
	}
}
