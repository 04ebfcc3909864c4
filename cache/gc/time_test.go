package gc_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cache/index"
)

// running runs g until the function returned is called.
func running(t *testing.T, g *gc.Collector) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// When the clock was set nothing is judged by its age, once.
func TestClockSet(t *testing.T) {
	for name, by := range map[string]time.Duration{"forward": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, cache.Config{})
			_, desc := s.blob(1000, 1)
			key := s.link("v1", desc, time.Now().Add(-time.Hour))
			old := gc.Ages{MaxAge: time.Minute, MaxUnused: time.Minute}
			g := gc.New(s.cache, s.index, gc.Config{Manifests: old, Layers: old})
			g.SetClock(by)
			if r := s.collect(g); r.Age+r.Unused != 0 || g.Stats().ClockJumps != 1 {
				t.Errorf("%+v, %d jumps: judged by a clock that was just set", r, g.Stats().ClockJumps)
			}
			if _, ok := s.index.Lookup(key); !ok || !s.has(desc) {
				t.Error("something is gone")
			}
			if r := s.collect(g); r.Age != 1 || g.Stats().ClockJumps != 1 {
				t.Errorf("%+v, %d jumps: want the old link dropped by the next", r, g.Stats().ClockJumps)
			}
			g.SetClock(30 * time.Second) // as time servers do
			s.collect(g)
			if n := g.Stats().ClockJumps; n != 1 {
				t.Errorf("%d jumps, one was none", n)
			}
		})
	}
}

// The other duties are done all the same when the clock was set.
func TestClockSetElse(t *testing.T) {
	s := newStore(t, cache.Config{MaxBytes: 1_000_000, Policy: "lru"})
	for i := range 10 {
		s.blob(90_000, uint64(i))
	}
	s.link("lost", ocispec.Descriptor{Digest: digest.FromString("lost"), Size: 1}, time.Now().Add(-time.Hour))
	if err := os.WriteFile(filepath.Join(s.dir, "content", "core"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g := gc.New(s.cache, s.index, gc.Config{MaxBytes: 1_000_000, LowMark: 0.5, Grace: time.Nanosecond})
	g.SetClock(-time.Hour)
	if r := s.collect(g); r.Size == 0 || r.Empty != 1 || r.Undesired != 1 || r.Age+r.Unused != 0 {
		t.Errorf("%+v", r)
	}
}

// What was noted by a clock that was ahead ages from when it is first seen.
func TestFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, cache.Config{})
		_, desc := s.blob(1000, 1)
		ahead := time.Now().Add(10 * 365 * 24 * time.Hour)
		k := s.link("v1", desc, ahead)
		g := gc.New(s.cache, s.index, gc.Config{Manifests: gc.Ages{MaxAge: time.Hour}})
		for range 3 {
			if r := s.collect(g); r.Age != 0 {
				t.Fatalf("%+v: dropped for a time that is yet to come", r)
			}
			time.Sleep(20 * time.Minute)
		}
		time.Sleep(time.Minute)
		r := s.collect(g)
		if _, ok := s.index.Lookup(k); ok || r.Age == 0 {
			t.Errorf("%+v: it stays for ten years", r)
		}
	})
}

// Collections come at intervals that differ, and as often as they should.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, cache.Config{})
		a := gc.New(s.cache, s.index, gc.Config{Interval: time.Hour})
		b := gc.New(s.cache, s.index, gc.Config{Interval: time.Hour})
		stopA, stopB := running(t, a), running(t, b)
		for range 4 {
			time.Sleep(70 * time.Minute)
			if a.Stats().Last.Equal(b.Stats().Last) {
				t.Error("two collectors keep step")
			}
		}
		stopA()
		stopB()
		if n := a.Stats().Collections; n < 4 || n > 5 {
			t.Errorf("%d collections in 4 h 40 min, one each hour", n)
		}
	})
}

// When the cache is nearly full, or the disk, it is not waited for the interval.
func TestLowSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, cache.Config{MaxBytes: 1_000_000, Policy: "lru"})
		var free atomic.Int64
		free.Store(1 << 30)
		g := gc.New(s.cache, s.index, gc.Config{
			Interval: 1000 * time.Hour, MaxBytes: 1_000_000, LowMark: 0.5, MinFree: 1 << 20, Grace: time.Second,
			Free: func() (int64, error) { return free.Load(), nil },
		})
		defer running(t, g)()
		time.Sleep(time.Minute)
		if st := g.Stats(); st.LowSpace != 0 || st.Collections != 0 {
			t.Errorf("%+v: collected without need", st)
		}
		for i := range 10 {
			s.blob(90_000, uint64(i))
		}
		time.Sleep(time.Minute)
		if st := g.Stats(); st.LowSpace != 1 || st.Size == 0 || st.Bytes < 300_000 || s.cache.Stats().Bytes > 500_000 {
			t.Errorf("%+v, %d bytes: no room was made", st, s.cache.Stats().Bytes)
		}
		junk := filepath.Join(s.dir, "content", "core")
		if err := os.WriteFile(junk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour) // the bubble's clock
		if err := os.Chtimes(junk, old, old); err != nil {
			t.Fatal(err)
		}
		free.Store(1 << 10)
		time.Sleep(65 * time.Second)
		if st := g.Stats(); st.Undesired != 1 || st.Collections != 1 && st.Collections != 2 {
			t.Errorf("%+v: want one collection, and no other before a minute is over", st)
		}
	})
}

// Reading again keeps to its rate, tells how far it is, and goes on after a restart
// where it was.
func TestScrubRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, cache.Config{})
		const size = 4 << 20
		for i := range 4 {
			s.blob(size, uint64(i))
		}
		time.Sleep(2 * time.Hour)
		cfg := gc.Config{CheckSHA: true, ScrubRate: 1 << 20, ScrubEvery: time.Hour, Interval: 1000 * time.Hour}
		g := gc.New(s.cache, s.index, cfg)
		stop := running(t, g)
		time.Sleep(8*time.Second + 500*time.Millisecond)
		if st := g.Stats(); st.Scrubbed != 2 || st.ScrubBytes != 2*size || st.ScrubDue != 2 || st.ScrubDueBytes != 2*size {
			t.Errorf("after 8.5 s at 1 MiB a second: %+v", st)
		}
		stop()
		for _, b := range s.cache.Blobs() {
			if used := time.Since(b.LastUsed); used < time.Hour {
				t.Errorf("a blob counts as used %v ago because it was compared", used)
			}
		}
		if err := s.cache.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.close()
		s.open(cache.Config{Dir: filepath.Join(s.dir, "content"), WholeBlobs: true})
		g = gc.New(s.cache, s.index, cfg)
		stop = running(t, g)
		time.Sleep(time.Second)
		if st := g.Stats(); st.ScrubDue != 2 {
			t.Errorf("after a restart %d are due, want 2", st.ScrubDue)
		}
		time.Sleep(10 * time.Minute)
		if st := g.Stats(); st.Scrubbed != 2 || st.ScrubDue != 0 || st.Corrupt != 0 {
			t.Errorf("at the end: %+v", st)
		}
		stop()
	})
}

// Who asks for a collection while one runs waits, as long as it likes.
func TestCollectTwice(t *testing.T) {
	s := newStore(t, cache.Config{})
	var want int64
	for n := range 20 {
		s.link(string(rune('a'+n)), ocispec.Descriptor{Digest: digest.FromString("none"), Size: 1}, time.Now().Add(-time.Hour))
		want++
	}
	g := gc.New(s.cache, s.index, gc.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := g.Collect(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := g.Stats(); st.Empty != want || st.Collections != 8 || st.Collecting {
		t.Errorf("%+v, want %d empty links in 8 collections", st, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Collect(ctx); err == nil {
		t.Error("a collection that nobody waits for succeeds")
	}
}

// Before everything is known, nothing is judged by its age.
func TestUnscanned(t *testing.T) {
	s := newStore(t, cache.Config{})
	_, desc := s.blob(1000, 1)
	s.link("v1", desc, time.Now().Add(-time.Hour))
	fresh, err := index.Open(filepath.Join(t.TempDir(), "other"), index.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	old := gc.Ages{MaxAge: time.Nanosecond}
	g := gc.New(s.cache, fresh, gc.Config{Manifests: old, Layers: old})
	if r := s.collect(g); r != (gc.Report{}) || !s.has(desc) {
		t.Errorf("%+v while the index is being read", r)
	}
}
