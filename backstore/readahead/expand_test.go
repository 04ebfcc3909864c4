package readahead_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func expand() readahead.Config {
	c := readahead.DefaultConfig
	c.Policy = readahead.Expand
	return c
}

func TestExpandConforms(t *testing.T) {
	devicetest.Run(t, func(_ *testing.T, contents []byte) device.Device {
		return readahead.New(blobtest.Bytes(contents), expand())
	})
}

// TestExpandContent reads at random, in all sizes, what is made longer on both
// sides.
func TestExpandContent(t *testing.T) {
	contents := make([]byte, 300<<10+512)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range contents {
		contents[i] = byte(rnd.Uint32())
	}
	below := &cold{Blob: blobtest.Bytes(contents)}
	d := readahead.New(below, expand())
	for range 2000 {
		off := rnd.IntN(len(contents)/512) * 512
		p := make([]byte, min((1+rnd.IntN(16))*512, len(contents)-off))
		if n, err := d.ReadAt(t.Context(), p, int64(off)); n != len(p) || err != nil {
			t.Fatalf("reading %d bytes at %d: %d, %v", len(p), off, n, err)
		}
		if !bytes.Equal(p, contents[off:off+len(p)]) {
			t.Fatalf("reading %d bytes at %d: other bytes", len(p), off)
		}
	}
	if below.longest <= 16*512 {
		t.Error("no read was made longer: the test shows nothing")
	}
}

// TestExpandEdges reads what is local, at the end, and before what can't be read.
func TestExpandEdges(t *testing.T) {
	o := newOrigin(1<<20 + 512) // reads past the end fail
	watch(t, o, expand(), func(read func(off, n int64)) { sequence(read, 0, o.size) })
	requests := o.requests
	watch(t, o, expand(), func(read func(off, n int64)) { sequence(read, 0, o.size) })
	if o.requests != requests {
		t.Errorf("%d requests for what is local", o.requests-requests)
	}
	o = newOrigin(1 << 20)
	o.bad = 512<<10 + page
	watch(t, o, expand(), func(read func(off, n int64)) { sequence(read, 0, o.bad) })
}

// TestExpandFetchesBlocks reads pages of a block backwards: they are one request.
func TestExpandFetchesBlocks(t *testing.T) {
	o := newOrigin(1 << 30)
	var c readahead.Counters
	d := readahead.NewShared(o, expand(), readahead.Shared{Counters: &c})
	read := func(off int64) {
		t.Helper()
		if _, err := d.ReadAt(t.Context(), make([]byte, page), off); err != nil {
			t.Fatal(err)
		}
	}
	read(5 * page)
	if got, want := c.Stats(), (readahead.Stats{Ahead: 3 * page}); got != want {
		t.Errorf("after one page: %+v, want %+v", got, want)
	}
	read(4 * page)
	read(4 * page)
	if got, want := c.Stats(), (readahead.Stats{Ahead: 3 * page, Used: page}); got != want || o.requests != 1 {
		t.Errorf("after the page before it: %+v in %d requests, want %+v in 1", got, o.requests, want)
	}
}

// TestExpandHoldsBack reads while somebody else waits for the registry.
func TestExpandHoldsBack(t *testing.T) {
	o := newOrigin(1 << 30)
	var c readahead.Counters
	busy := true
	quiet := func() time.Duration {
		if busy {
			return 0
		}
		return time.Second
	}
	d := readahead.NewShared(o, expand(), readahead.Shared{Quiet: quiet, Counters: &c})
	for n := range int64(10) {
		if _, err := d.ReadAt(t.Context(), make([]byte, page), n<<20); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Stats(); o.fetched() != 10*page || got.Skipped != 10 || got.Ahead != 0 {
		t.Errorf("%d bytes fetched, %+v, while somebody waited", o.fetched(), got)
	}
	busy = false
	if _, err := d.ReadAt(t.Context(), make([]byte, page), 64<<20); err != nil {
		t.Fatal(err)
	}
	if o.fetched() <= 11*page {
		t.Error("nothing is read ahead when nobody waits any more")
	}
}

// TestParallel reads from several places at once, for the race detector.
func TestParallel(t *testing.T) {
	for _, policy := range []string{readahead.Sequential, readahead.Expand} {
		cfg := readahead.DefaultConfig
		cfg.Policy = policy
		o := newOrigin(64 << 20)
		var c readahead.Counters
		d := readahead.NewShared(o, cfg, readahead.Shared{Counters: &c})
		ctx, cancel := context.WithCancel(t.Context())
		var run, readers sync.WaitGroup
		run.Go(func() {
			if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v", err)
			}
		})
		for r := range int64(8) {
			readers.Go(func() {
				sequence(func(off, n int64) {
					if _, err := d.ReadAt(ctx, make([]byte, n), off); err != nil {
						t.Error(err)
					}
				}, r<<20, 1<<20)
			})
		}
		readers.Wait()
		cancel()
		run.Wait()
		if s := c.Stats(); s.Ahead == 0 || s.Used == 0 || s.Used > s.Ahead {
			t.Errorf("%s: %+v", policy, s)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []readahead.Config{{}, readahead.DefaultConfig, {Policy: readahead.Off}, expand()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []readahead.Config{{Policy: "more"}, {Max: -1}, {Trigger: -1}, {Block: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, c := range []readahead.Config{{Policy: readahead.Off, Max: 1 << 20}, {Policy: readahead.Expand}} {
		o := newOrigin(1 << 20)
		watch(t, o, c, func(read func(off, n int64)) { sequence(read, 0, 256<<10) })
		if o.fetched() != 256<<10 || o.requests != 64 {
			t.Errorf("%+v: %d bytes in %d requests, though it is off", c, o.fetched(), o.requests)
		}
	}
}
