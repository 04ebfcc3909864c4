package lsmt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// partial is a layer's stream of which [absent, absent+512) is not local.
// Reads of absent bytes take a second.
type partial struct {
	memory
	absent atomic.Int64
	asked  atomic.Int64
	fail   error
}

func (p *partial) Present(off, n int64) bool {
	p.asked.Add(1)
	absent := p.absent.Load()
	return absent < off || absent >= off+n
}

func (p *partial) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	if absent := p.absent.Load(); off < 1<<20 && absent >= off && absent < off+int64(len(b)) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if p.fail != nil {
			return 0, p.fail
		}
	}
	return p.memory.ReadAt(ctx, b, off)
}

// interleaved returns an image of n layers, each of which has every n-th of 10 n
// sectors, and its streams.
func interleaved(t *testing.T, n int) (*lsmt.Image, []*partial) {
	t.Helper()
	var layers []*lsmt.Layer
	var streams []*partial
	for i := range n {
		var records []lsmt.Segment
		for s := range 10 {
			records = append(records, lsmt.Segment{Offset: int64(s*n + i), Length: 1, Mapped: int64(8 + s)})
		}
		id := lsmt.Identity{VirtualSize: int64(10*n) * lsmt.SectorSize}
		stream := &partial{memory: lsmt.BuildLayer(id, sectors(i, 10), records)}
		stream.absent.Store(-1)
		l, err := lsmt.Open(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		layers, streams = append(layers, l), append(streams, stream)
	}
	image, err := lsmt.Stack(layers)
	if err != nil {
		t.Fatal(err)
	}
	return image, streams
}

func TestLocal(t *testing.T) {
	image, streams := interleaved(t, 3)
	if !image.Local() {
		t.Error("all is there, but not local")
	}
	streams[1].absent.Store(14 * lsmt.SectorSize)
	if image.Local() {
		t.Error("local with a sector missing")
	}
	// The second question goes straight to the gap.
	for _, s := range streams {
		s.asked.Store(0)
	}
	if image.Local() {
		t.Error("local with a sector missing")
	}
	if asked := streams[0].asked.Load() + streams[1].asked.Load() + streams[2].asked.Load(); asked != 1 {
		t.Errorf("%d questions for a known gap", asked)
	}
	// It closes, and another one opens before it.
	streams[1].absent.Store(9 * lsmt.SectorSize)
	if image.Local() {
		t.Error("local with an earlier sector missing")
	}
	streams[1].absent.Store(-1)
	if !image.Local() {
		t.Error("gap has closed, but not local")
	}
	// What is never read may be absent: header, index, trailer.
	streams[2].absent.Store(0)
	if !image.Local() {
		t.Error("the header counts")
	}
}

// TestParallelReads: what is not local is fetched at once, not one layer after
// the other; what is local needs no goroutine.
func TestParallelReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, streams := interleaved(t, 8)
		want := make([]byte, image.Size())
		if _, err := image.ReadAt(t.Context(), want, 0); err != nil {
			t.Fatal(err)
		}
		for _, s := range streams {
			s.absent.Store(10 * lsmt.SectorSize)
		}
		start, p := time.Now(), make([]byte, image.Size())
		if n, err := image.ReadAt(t.Context(), p, 0); n != len(p) || err != nil || !bytes.Equal(p, want) {
			t.Errorf("%d, %v, or other bytes", n, err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("8 fetches of a second took %v", took)
		}
	})
}

// TestReadErrors: an error names the layer, and ends the other reads.
func TestReadErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, streams := interleaved(t, 8)
		broken := errors.New("broken")
		for _, s := range streams {
			s.absent.Store(10 * lsmt.SectorSize)
			s.fail = broken
		}
		p := make([]byte, image.Size())
		_, err := image.ReadAt(t.Context(), p, 0)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "reading layer ") {
			t.Errorf("error %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := image.ReadAt(ctx, make([]byte, image.Size()), 0); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled read: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if _, err := image.ReadAt(t.Context(), p, -1); err == nil {
			t.Error("read at a negative offset")
		}
		// A stream that is shorter than its index says.
		streams[0].memory = streams[0].memory[:9*lsmt.SectorSize]
		if _, err := image.ReadAt(t.Context(), p[:512], 8*lsmt.SectorSize); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short stream: %v", err)
		}
	})
}

func TestPresent(t *testing.T) {
	image, streams := interleaved(t, 3)
	streams[1].absent.Store(14 * lsmt.SectorSize)
	const missing = 6*3 + 1 // the sector of the disk that lies there
	sectors := image.Size() / lsmt.SectorSize
	for from := range sectors {
		for to := from; to <= sectors; to++ {
			want := to <= missing || from > missing
			if got := image.Present(from*lsmt.SectorSize, (to-from)*lsmt.SectorSize); got != want {
				t.Errorf("sectors [%d, %d) present: %v, want %v", from, to, got, want)
			}
		}
	}
	if !image.Present(missing*lsmt.SectorSize-1, 1) || image.Present(missing*lsmt.SectorSize-1, 2) {
		t.Error("parts of sectors are told wrong")
	}
	if image.Present(image.Size(), 1) || image.Present(-1, 1) {
		t.Error("what is outside of the image is present")
	}
}
