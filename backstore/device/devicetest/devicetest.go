// Package devicetest helps to test implementations and users of
// device.Device: a conformance suite, a device in memory, and devices that
// are slow, fail or hang.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/device"
)

// Run checks that what open returns for some contents behaves as a
// device.Device must. The contents' sizes are multiples of device.SectorSize.
func Run(t *testing.T, open func(t *testing.T, contents []byte) device.Device) {
	t.Run("Size", func(t *testing.T) {
		for _, n := range []int{device.SectorSize, 4096, 1<<20 + 3*device.SectorSize} {
			if got := open(t, Random(n)).Size(); got != int64(n) {
				t.Errorf("Size() = %d, want %d", got, n)
			}
		}
	})
	t.Run("ReadAt", func(t *testing.T) { testReadAt(t, open) })
	t.Run("EndOfDevice", func(t *testing.T) { testEnd(t, open) })
	t.Run("Parallel", func(t *testing.T) { testParallel(t, open) })
	t.Run("Cancelled", func(t *testing.T) { testCancelled(t, open) })
}

// Random returns n bytes that are the same in every run.
func Random(n int) []byte {
	var seed [32]byte
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(p)
	return p
}

func testReadAt(t *testing.T, open func(*testing.T, []byte) device.Device) {
	contents := Random(256 << 10)
	d := open(t, contents)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		checkRead(t, d, contents, rnd)
	}
	if n, err := d.ReadAt(t.Context(), nil, 0); n != 0 || err != nil {
		t.Errorf("ReadAt of no bytes = %d, %v", n, err)
	}
}

// checkRead reads a random range of sectors and compares it. The buffer holds
// something else before, so that bytes left alone are noticed.
func checkRead(t *testing.T, d device.Device, contents []byte, rnd *rand.Rand) {
	t.Helper()
	sectors := len(contents) / device.SectorSize
	first := rnd.IntN(sectors)
	n := (1 + rnd.IntN(sectors-first)) * device.SectorSize
	off := first * device.SectorSize
	p := bytes.Repeat([]byte{0xA5}, n)
	got, err := d.ReadAt(t.Context(), p, int64(off))
	if got != n || (err != nil && !errors.Is(err, io.EOF)) {
		t.Errorf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
		return
	}
	if !bytes.Equal(p, contents[off:off+n]) {
		t.Errorf("ReadAt(%d bytes, %d) returned wrong bytes", n, off)
	}
}

func testEnd(t *testing.T, open func(*testing.T, []byte) device.Device) {
	contents := Random(8 * device.SectorSize)
	d := open(t, contents)
	p := make([]byte, 4*device.SectorSize)
	n, err := d.ReadAt(t.Context(), p, 6*device.SectorSize)
	if n != 2*device.SectorSize || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt across the end = %d, %v; want %d, io.EOF", n, err, 2*device.SectorSize)
	}
	if !bytes.Equal(p[:n], contents[6*device.SectorSize:]) {
		t.Error("ReadAt across the end returned wrong bytes")
	}
	if n, err := d.ReadAt(t.Context(), p, 8*device.SectorSize); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at the end = %d, %v; want 0, io.EOF", n, err)
	}
}

func testParallel(t *testing.T, open func(*testing.T, []byte) device.Device) {
	contents := Random(512 << 10)
	d := open(t, contents)
	var g errgroup.Group
	for i := range 16 {
		rnd := rand.New(rand.NewPCG(3, uint64(i)))
		g.Go(func() error {
			for range 50 {
				checkRead(t, d, contents, rnd)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// testCancelled only asks that a read with a dead context returns: bytes that
// are there may be returned all the same.
func testCancelled(t *testing.T, open func(*testing.T, []byte) device.Device) {
	d := open(t, Random(4096))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := d.ReadAt(ctx, make([]byte, 512), 0)
	if n < 512 && err == nil {
		t.Errorf("ReadAt with a cancelled context = %d, nil", n)
	}
}
