package readahead_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/remote/blob"
)

const page = 4096

// origin is a device of zeros that keeps the pages it was asked for, as the
// cache below a real one does, and counts the reads that found some missing.
type origin struct {
	size int64
	bad  int64 // reads that reach here fail; 0 is nowhere

	mu         sync.Mutex
	pages      map[int64]bool
	requests   int // of both kinds
	background int
}

func newOrigin(size int64) *origin { return &origin{size: size, pages: map[int64]bool{}} }

func (o *origin) Size() int64 { return o.size }

func (o *origin) Present(off, n int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.present(off, n)
}

func (o *origin) present(off, n int64) bool {
	for p := off / page; p*page < off+n; p++ {
		if !o.pages[p] {
			return false
		}
	}
	return true
}

func (o *origin) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	end := off + int64(len(p))
	if end > o.size {
		return 0, errors.New("read past the end")
	}
	if o.bad != 0 && end > o.bad {
		return 0, errors.New("bad block")
	}
	if o.present(off, int64(len(p))) {
		return len(p), nil
	}
	o.requests++
	if blob.PriorityOf(ctx) == blob.Background {
		o.background++
	}
	for at := off / page; at*page < end; at++ {
		o.pages[at] = true
	}
	return len(p), nil
}

// fetched returns the bytes that were asked for.
func (o *origin) fetched() int64 { return int64(len(o.pages)) * page }

// watch runs reads against a device with readahead over o.
func watch(t *testing.T, o *origin, cfg readahead.Config, reads func(read func(off, n int64))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := readahead.New(o, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v, want context.Canceled", err)
			}
		})
		reads(func(off, n int64) {
			got, err := d.ReadAt(t.Context(), make([]byte, n), off)
			if err != nil || int64(got) != n {
				t.Errorf("ReadAt(%d, %d) = %d, %v", off, n, got, err)
			}
			synctest.Wait()
		})
		cancel()
		wg.Wait()
	})
}

// sequence reads [off, off+n) page by page.
func sequence(read func(off, n int64), off, n int64) {
	for at := off; at < off+n; at += page {
		read(at, min(page, off+n-at))
	}
}

var cfg = readahead.Config{Policy: readahead.Sequential, Trigger: readahead.DefaultConfig.Trigger, Max: readahead.DefaultConfig.Max}

func TestShortStreamsNeedFewerRequests(t *testing.T) {
	o := newOrigin(1 << 30)
	const files, each = 64, 64 << 10
	watch(t, o, cfg, func(read func(off, n int64)) {
		for f := range int64(files) {
			sequence(read, f<<20, each)
		}
	})
	if o.requests > files*each/page/2 {
		t.Errorf("%d requests for %d files of %d pages", o.requests, files, each/page)
	}
	if o.fetched() > files*each*3/2 {
		t.Errorf("%d bytes fetched for %d read", o.fetched(), files*each)
	}
	if o.background != 0 {
		t.Errorf("%d of the requests are in the background", o.background)
	}
}

func TestLongStreamIsReadInTheBackground(t *testing.T) {
	const upTo = 8 << 20
	o := newOrigin(16 << 20)
	watch(t, o, cfg, func(read func(off, n int64)) { sequence(read, 0, upTo) })
	if o.background < upTo/(128<<10)/2 {
		t.Errorf("%d background reads for a stream of %d bytes", o.background, upTo)
	}
	if o.requests > upTo/(64<<10) {
		t.Errorf("%d requests for a stream of %d bytes", o.requests, upTo)
	}
	if o.fetched() > upTo+cfg.Max {
		t.Errorf("%d bytes fetched for %d read", o.fetched(), upTo)
	}
}

func TestParallelStreamsAreToldApart(t *testing.T) {
	const readers, each = 8, 1 << 20
	o := newOrigin(1 << 30)
	watch(t, o, cfg, func(read func(off, n int64)) {
		for off := int64(0); off < each; off += page {
			for r := range int64(readers) {
				read(r<<24+off, page)
			}
		}
	})
	if o.requests > readers*each/page/8 {
		t.Errorf("%d requests for %d streams of %d pages", o.requests, readers, each/page)
	}
}

func TestRandomReadsAreLeftAlone(t *testing.T) {
	o := newOrigin(1 << 30)
	rnd := rand.New(rand.NewPCG(1, 2))
	const reads = 500
	watch(t, o, cfg, func(read func(off, n int64)) {
		for range reads {
			read(rnd.Int64N(o.size/page/2)*2*page, page) // never adjacent
		}
	})
	if o.fetched() > reads*page {
		t.Errorf("%d bytes fetched for %d read", o.fetched(), reads*page)
	}
}

// Expand may try, but must notice that nothing comes of it.
func TestExpandGivesUpOnRandomReads(t *testing.T) {
	o := newOrigin(1 << 30)
	rnd := rand.New(rand.NewPCG(1, 2))
	const reads = 4000
	cfg := readahead.DefaultConfig
	watch(t, o, cfg, func(read func(off, n int64)) {
		for range reads {
			read(rnd.Int64N(o.size/page)*page, page)
		}
	})
	const try = 4 << 20
	if most := int64(3*reads*page + try); o.fetched() > most {
		t.Errorf("%d bytes fetched for %d read, more than %d", o.fetched(), reads*page, most)
	}
	if o.fetched() < try {
		t.Errorf("%d bytes fetched: it was not tried at all", o.fetched())
	}
}

func TestEndOfDevice(t *testing.T) {
	o := newOrigin(1<<20 + 512) // reads past the end fail
	watch(t, o, cfg, func(read func(off, n int64)) { sequence(read, 0, o.size) })
}

func TestReadSurvivesWhatIsBehindIt(t *testing.T) {
	o := newOrigin(1 << 20)
	o.bad = 512 << 10
	watch(t, o, cfg, func(read func(off, n int64)) { sequence(read, 0, o.bad) })
}

func TestLocalDeviceIsReadAsItIs(t *testing.T) {
	o := newOrigin(1 << 20)
	for p := range o.size / page {
		o.pages[p] = true
	}
	watch(t, o, cfg, func(read func(off, n int64)) { sequence(read, 0, o.size) })
	if o.requests != 0 {
		t.Errorf("%d requests", o.requests)
	}
}

func TestOff(t *testing.T) {
	o := newOrigin(1 << 20)
	watch(t, o, readahead.Config{}, func(read func(off, n int64)) { sequence(read, 0, 512<<10) })
	if o.fetched() != 512<<10 || o.requests != 128 {
		t.Errorf("%d bytes in %d requests, though it is off", o.fetched(), o.requests)
	}
}
