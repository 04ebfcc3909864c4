package lsmt_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestManyBelow: a writable layer on as many as there can be.
func TestManyBelow(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		const size = 300 * lsmt.SectorSize
		var layers []*lsmt.Layer
		model := make([]byte, size)
		for i := range lsmt.MaxLayers {
			records := []lsmt.Segment{{Offset: int64(i), Length: 3, Mapped: 8}}
			copy(model[i*lsmt.SectorSize:], sectors(i, 3))
			l, err := lsmt.Open(t.Context(), memory(lsmt.BuildLayer(lsmt.Identity{VirtualSize: size}, sectors(i, 3), records)))
			if err != nil {
				t.Fatal(err)
			}
			layers = append(layers, l)
		}
		image, err := lsmt.Stack(layers)
		if err != nil {
			t.Fatal(err)
		}
		u, files := newUpper(t, sparse, size, image)
		h := &history{rnd: rand.New(rand.NewPCG(1, 19)), model: model}
		comparePieces(t, h.rnd, u, model)
		for range 50 {
			h.step(t, u)
		}
		closed(t, u)
		comparePieces(t, h.rnd, reopen(t, files, image), model)
	})
}

// TestSharedFlush: flushes that wait for the same thing share it.
func TestSharedFlush(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		u, _ := newUpper(t, sparse, 1<<20, nil)
		began, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		lsmt.Fail(u, func(op string) error {
			if op == "sync" {
				once.Do(func() {
					close(began)
					<-goOn
				})
			}
			return nil
		})
		flush := func() {
			if err := u.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		write(t, u, sectors(1, 8), 0)
		var wg sync.WaitGroup
		wg.Go(flush)
		<-began
		// One that gives up does not disturb the others.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := u.Flush(ctx); err == nil {
			t.Error("flush with a dead context waited")
		}
		write(t, u, sectors(2, 8), 8)
		for range 20 {
			wg.Go(flush)
		}
		for lsmt.FlushesWaiting(u) < 20 {
			runtime.Gosched()
		}
		close(goOn)
		wg.Wait()
		if n := u.Stats().Flushes; n != 2 {
			t.Errorf("%d flushes for two", n)
		}
	})
}

// TestFlushDuringWrite: a flush while a write is at work does not stand for it.
func TestFlushDuringWrite(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		u, _ := newUpper(t, sparse, 1<<20, nil)
		var writes, syncs int
		lsmt.Fail(u, func(op string) error {
			switch op {
			case "write":
				if writes++; writes == 1 {
					return u.Flush(t.Context())
				}
			case "sync":
				syncs++
			}
			return nil
		})
		write(t, u, sectors(1, 8), 0)
		before := syncs
		if err := u.Flush(t.Context()); err != nil || syncs == before {
			t.Errorf("%d syncs after the write, %v", syncs-before, err)
		}
	})
}

// TestSparseLower: a discard writes zeros only where there is something below,
// and what is told about data and presence is true.
func TestSparseLower(t *testing.T) {
	const size = 8 << 20
	below := make([]byte, size)
	copy(below[1<<20:], sectors(1, 2048))
	u, files := newUpper(t, true, size, imageOf(t, below))
	if !u.Present(0, size) || u.Present(0, size+1) {
		t.Error("presence is told wrong")
	}
	discard(t, u, 0, size/512)
	if s := u.Stats(); s.Data > 2<<20 {
		t.Errorf("discarding 8 MiB over 1 MiB takes %d bytes", s.Data)
	}
	write(t, u, sectors(2, 8), 4<<20/512)
	for _, want := range [][2]int64{{1 << 20, 2 << 20}, {4 << 20, 4<<20 + 4096}} {
		if start, end, err := u.NextData(want[0] - 512); start != want[0] || end > want[1] || err != nil {
			t.Errorf("data from %d to %d, %v; want %v", start, end, err, want)
		}
	}
	if _, _, err := u.NextData(5 << 20); err != io.EOF {
		t.Error(err)
	}
	closed(t, u)
	u = reopen(t, files, imageOf(t, below))
	clear(below)
	copy(below[4<<20:], sectors(2, 8))
	if got := readAll(t, u); !bytes.Equal(got, below) {
		t.Errorf("sector %d differs", differs(got, below))
	}
}

// imageOf returns a disk as an image that tells where it has data.
func imageOf(t *testing.T, disk []byte) *lsmt.Image {
	t.Helper()
	image, err := lsmt.Stack([]*lsmt.Layer{diff(t, make([]byte, len(disk)), disk)})
	if err != nil {
		t.Fatal(err)
	}
	return image
}
