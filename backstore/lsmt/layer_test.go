package lsmt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestImageConforms runs the suite of devices on images of one and of many
// layers.
func TestImageConforms(t *testing.T) {
	for _, layers := range []int{1, 7} {
		devicetest.Run(t, func(t *testing.T, contents []byte) device.Device {
			var opened []*lsmt.Layer
			before := make([]byte, len(contents))
			for i := range layers {
				// Each layer gets a part of the sectors; the last all the rest.
				now := bytes.Clone(before)
				for s := 0; s < len(contents); s += lsmt.SectorSize {
					if i == layers-1 || s/4096%layers == i {
						copy(now[s:s+lsmt.SectorSize], contents[s:])
					}
				}
				opened = append(opened, diff(t, before, now))
				before = now
			}
			image, err := lsmt.Stack(opened)
			if err != nil {
				t.Fatal(err)
			}
			return image
		})
	}
}

// diff commits what differs between two disks and opens it.
func diff(t testing.TB, before, now []byte) *lsmt.Layer {
	t.Helper()
	var b bytes.Buffer
	opts := lsmt.DiskOptions{Base: memory(before)}
	if err := lsmt.CommitDisk(t.Context(), &b, memory(now), opts); err != nil {
		t.Fatal(err)
	}
	l, err := lsmt.Open(t.Context(), memory(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestModel writes random layers to a plain array, too, and compares reads of
// the stack at any offset and of any length.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const disk = 400 // sectors
		model := make([]byte, disk*lsmt.SectorSize)
		var layers []*lsmt.Layer
		for i := range 1 + rnd.IntN(9) {
			data := sectors(i, disk)
			var records []lsmt.Segment
			for at, mapped := rnd.Int64N(20), int64(8); at < disk; at += rnd.Int64N(30) {
				n := min(1+rnd.Int64N(40), disk-at)
				zeroed := rnd.IntN(4) == 0
				records = append(records, lsmt.Segment{Offset: at, Length: n, Mapped: mapped, Zeroed: zeroed})
				part := model[at*lsmt.SectorSize : (at+n)*lsmt.SectorSize]
				clear(part)
				if !zeroed {
					copy(part, data[(mapped-8)*lsmt.SectorSize:])
					mapped += n
				}
				at += n
			}
			raw := lsmt.BuildLayer(lsmt.Identity{VirtualSize: int64(len(model))}, data, records)
			l, err := lsmt.Open(t.Context(), memory(raw))
			if err != nil {
				t.Fatal(err)
			}
			layers = append(layers, l)
		}
		image, err := lsmt.Stack(layers)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, rnd, image, model)
		compareCommitted(t, image, model)
	}
}

func compare(t *testing.T, rnd *rand.Rand, image *lsmt.Image, model []byte) {
	t.Helper()
	for range 200 {
		off, n := rnd.IntN(len(model)+600), rnd.IntN(1+rnd.IntN(len(model)))
		p := bytes.Repeat([]byte{0xaa}, n)
		got, err := image.ReadAt(t.Context(), p, int64(off))
		want := model[min(off, len(model)):min(off+n, len(model))]
		if got != len(want) || !bytes.Equal(p[:got], want) {
			t.Fatalf("%d bytes at %d: %d, %v, or other bytes", n, off, got, err)
		}
		if err != nil && err != io.EOF || (err == io.EOF) != (got < n) {
			t.Fatalf("%d bytes at %d: %d and error %v", n, off, got, err)
		}
	}
}

// compareCommitted commits the stack as one layer and compares that.
func compareCommitted(t *testing.T, image *lsmt.Image, model []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := image.Commit(t.Context(), &b, lsmt.Identity{}); err != nil {
		t.Fatal(err)
	}
	l, err := lsmt.Open(t.Context(), memory(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := lsmt.Stack([]*lsmt.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(model))
	if _, err := merged.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, model) {
		t.Fatalf("committed stack differs: %v", err)
	}
}

// TestManyLayers stacks as many layers as the format can, and one more.
func TestManyLayers(t *testing.T) {
	var layers []*lsmt.Layer
	for i := range lsmt.MaxLayers + 1 {
		records := []lsmt.Segment{{Offset: int64(i), Length: 3, Mapped: 8}}
		raw := lsmt.BuildLayer(lsmt.Identity{VirtualSize: 1 << 20}, sectors(i, 3), records)
		l, err := lsmt.Open(t.Context(), memory(raw))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	if _, err := lsmt.Stack(layers); err == nil {
		t.Error("stacked 256 layers")
	}
	image, err := lsmt.Stack(layers[:lsmt.MaxLayers])
	if err != nil {
		t.Fatal(err)
	}
	if image.Len() != lsmt.MaxLayers {
		t.Errorf("%d segments", image.Len())
	}
	p := make([]byte, lsmt.SectorSize)
	for i := range lsmt.MaxLayers {
		if _, err := image.ReadAt(t.Context(), p, int64(i)*lsmt.SectorSize); err != nil || !bytes.Equal(p, sectors(i, 1)) {
			t.Fatalf("sector %d: %v, %q", i, err, p[:30])
		}
	}
	stats := image.Layers()
	if s := stats[254]; s.Segments != 1 || s.Mapped != 3*lsmt.SectorSize {
		t.Errorf("top layer: %+v", s)
	}
	if s := stats[0]; s.Segments != 1 || s.Mapped != lsmt.SectorSize || s.Zeroed != 0 {
		t.Errorf("bottom layer: %+v", s)
	}
	if _, err := lsmt.Stack(nil); err == nil {
		t.Error("stacked nothing")
	}
}

// TestIndexBomb: a trailer that claims a large index in a blob that claims to
// be large costs no memory before the bytes arrive.
func TestIndexBomb(t *testing.T) {
	raw := lsmt.BuildLayer(lsmt.Identity{VirtualSize: 1 << 20}, nil, nil)
	binary.LittleEndian.PutUint64(raw[4096+40:], 1_000_000)
	b := &bomb{head: raw[:4096], tail: raw[4096:]}
	_, err := lsmt.Open(t.Context(), b)
	if !errors.Is(err, errBomb) {
		t.Errorf("error %v", err)
	}
	if largest := b.largest.Load(); largest > 1<<20 {
		t.Errorf("buffer of %d bytes before anything arrived", largest)
	}
}

var errBomb = errors.New("no more bytes")

// bomb claims to have a terabyte and has two blocks.
type bomb struct {
	head, tail []byte
	largest    atomic.Int64
}

func (b *bomb) Size() int64 { return 1 << 40 }
func (b *bomb) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	b.largest.Store(max(b.largest.Load(), int64(len(p))))
	switch {
	case off == 0:
		return copy(p, b.head), nil
	case off == b.Size()-4096:
		return copy(p, b.tail), nil
	}
	return 0, errBomb
}

// TestNotALayer: what is no layer at all can be told from a damaged one.
func TestNotALayer(t *testing.T) {
	raw := lsmt.BuildLayer(lsmt.Identity{VirtualSize: 4096}, nil, nil)
	for name, b := range map[string][]byte{"empty": nil, "short": raw[:100], "text": []byte(strings.Repeat("text ", 5000))} {
		if _, err := lsmt.Open(t.Context(), memory(b)); !errors.Is(err, lsmt.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := bytes.Clone(raw)
	broken[4096] = 0
	if _, err := lsmt.Open(t.Context(), memory(broken)); err == nil || errors.Is(err, lsmt.ErrFormat) {
		t.Errorf("broken trailer: %v", err)
	}
}
