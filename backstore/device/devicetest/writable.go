package devicetest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/device"
)

// RunWritable checks that what open returns, which has contents, behaves as a
// device.Writable must, and as a device.Device after it was written to.
func RunWritable(t *testing.T, open func(t *testing.T, contents []byte) device.Writable) {
	Run(t, func(t *testing.T, contents []byte) device.Device {
		d := open(t, make([]byte, len(contents)))
		mustWrite(t, d, contents, 0)
		return d
	})
	t.Run("WriteAt", func(t *testing.T) { testWrites(t, open) })
	t.Run("Again", func(t *testing.T) { testAgain(t, open) })
	t.Run("Discard", func(t *testing.T) { testDiscard(t, open) })
	t.Run("ParallelWrites", func(t *testing.T) { testParallelWrites(t, open) })
}

func mustWrite(t *testing.T, d device.Writable, p []byte, off int64) {
	t.Helper()
	if n, err := d.WriteAt(t.Context(), p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// checkContents compares all of d.
func checkContents(t *testing.T, d device.Writable, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xA5}, len(want))
	if n, err := d.ReadAt(t.Context(), got, 0); n != len(want) {
		t.Fatalf("ReadAt of everything = %d, %v", n, err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the device does not hold what was written")
	}
}

// testWrites writes and discards random ranges of sectors.
func testWrites(t *testing.T, open func(*testing.T, []byte) device.Writable) {
	contents := Random(256 << 10)
	d := open(t, bytes.Clone(contents))
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 300 {
		off, n := randomRange(rnd, len(contents))
		if i%5 == 0 {
			clear(contents[off : off+n])
			if err := d.Discard(t.Context(), int64(off), int64(n)); err != nil {
				t.Fatalf("Discard(%d, %d): %v", off, n, err)
			}
		} else {
			p := Random(n + i)[i:]
			copy(contents[off:], p)
			mustWrite(t, d, p, int64(off))
		}
		if i%50 == 0 {
			if err := d.Flush(t.Context()); err != nil {
				t.Fatalf("Flush: %v", err)
			}
		}
		checkRead(t, d, contents, rnd)
	}
	checkContents(t, d, contents)
}

func randomRange(rnd *rand.Rand, size int) (off, n int) {
	sectors := size / device.SectorSize
	first := rnd.IntN(sectors)
	return first * device.SectorSize, (1 + rnd.IntN(min(sectors-first, 64))) * device.SectorSize
}

// testAgain repeats writes, as the kernel does for a daemon that was killed.
func testAgain(t *testing.T, open func(*testing.T, []byte) device.Writable) {
	contents := Random(64 << 10)
	d := open(t, make([]byte, len(contents)))
	for range 3 {
		mustWrite(t, d, contents, 0)
	}
	for range 2 {
		if err := d.Discard(t.Context(), 4096, 8192); err != nil {
			t.Fatal(err)
		}
	}
	clear(contents[4096 : 4096+8192])
	checkContents(t, d, contents)
}

func testDiscard(t *testing.T, open func(*testing.T, []byte) device.Writable) {
	contents := Random(64 << 10)
	d := open(t, bytes.Clone(contents))
	if err := d.Discard(t.Context(), 0, 0); err != nil {
		t.Errorf("Discard of nothing: %v", err)
	}
	if err := d.Discard(t.Context(), device.SectorSize, 3*device.SectorSize); err != nil {
		t.Error(err)
	}
	clear(contents[device.SectorSize : 4*device.SectorSize])
	checkContents(t, d, contents)
	if err := d.Discard(t.Context(), 0, int64(len(contents))); err != nil {
		t.Error(err)
	}
	checkContents(t, d, make([]byte, len(contents)))
}

// testParallelWrites writes disjoint stretches at once, with reads and flushes
// between.
func testParallelWrites(t *testing.T, open func(*testing.T, []byte) device.Writable) {
	const workers, part = 8, 32 << 10
	contents := Random(workers * part)
	d := open(t, make([]byte, len(contents)))
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			for off := w * part; off < (w+1)*part; off += device.SectorSize {
				if _, err := d.WriteAt(t.Context(), contents[off:off+device.SectorSize], int64(off)); err != nil {
					return err
				}
				if off%8192 == 0 {
					if err := d.Flush(t.Context()); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	checkContents(t, d, contents)
}
