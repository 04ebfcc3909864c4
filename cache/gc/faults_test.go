package gc_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/gc"
)

// A file that was cut, or is another one, is damage as wrong bytes are, whether it
// is open or not.
func TestCorruptFile(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"cut":      func(file string) error { return os.Truncate(file, 1000) },
		"grown":    func(file string) error { return os.Truncate(file, 100_000) },
		"replaced": func(file string) error { return errors.Join(os.Rename(file, file+"2"), copyFile(file+"2", file)) },
		"zeros":    func(file string) error { return errors.Join(os.Truncate(file, 0), os.Truncate(file, 50_000)) },
	} {
		for _, isOpen := range []bool{false, true} {
			if isOpen && (name == "grown" || name == "replaced") {
				continue // who has it open has the right bytes
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel() // it waits for files to be closed
				cfg := cache.Config{}
				if !isOpen {
					cfg.IdleAfter = time.Nanosecond
				}
				s := newStore(t, cfg)
				_, bad := s.blob(50_000, 1)
				_, good := s.blob(50_000, 2)
				for !isOpen && s.cache.Stats().Open > 0 {
					time.Sleep(10 * time.Millisecond)
				}
				if err := damage(s.path(bad, ".data")); err != nil {
					t.Fatal(err)
				}
				g := gc.New(s.cache, s.index, gc.Config{})
				r, _ := g.Verify(t.Context(), nil)
				if s.has(bad) || !s.has(good) {
					t.Error("the damaged one is served, or the good one not")
				}
				if g.Stats().Corrupt != 1 || r.Corrupt != 1 {
					t.Errorf("%+v: not counted as damaged", r)
				}
				if _, again := s.blob(50_000, 1); !s.has(again) {
					t.Error("it can't be stored again")
				}
			})
		}
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// A manifest is judged as one after the link that led to it is gone.
func TestManifestStays(t *testing.T) {
	s := newStore(t, cache.Config{})
	_, manifest := s.blob(500, 1)
	_, layer := s.blob(500, 2)
	key := s.link("v1", manifest, time.Now())
	x, ok := s.cache.Find("", manifest.Digest)
	if !ok {
		t.Fatal("the manifest is gone")
	}
	g := gc.New(s.cache, s.index, gc.Config{Manifests: gc.Ages{MaxUnused: time.Nanosecond}})
	if r := s.collect(g); r.Unused != 1 || !s.has(manifest) {
		t.Errorf("%+v: want the link dropped and the content, which is in use, not", r)
	}
	if _, ok := s.index.Lookup(key); ok {
		t.Error("the link is there")
	}
	x.Release()
	if r := s.collect(g); r.Unused != 1 || s.has(manifest) || !s.has(layer) {
		t.Errorf("%+v: want the manifest dropped and the layer not", r)
	}
}

// The space of what is dropped counts until its last user is done.
func TestHolders(t *testing.T) {
	s := newStore(t, cache.Config{})
	_, desc := s.blob(90_000, 1)
	x, ok := s.cache.Find("", desc.Digest)
	if !ok {
		t.Fatal("it is gone")
	}
	g := gc.New(s.cache, s.index, gc.Config{Layers: gc.Ages{MaxAge: time.Nanosecond}})
	if r := s.collect(g); r.Age != 1 || r.Bytes != 0 || s.cache.Stats().Bytes < 90_000 {
		t.Errorf("%+v, %d bytes: the space of what is in use is not free", r, s.cache.Stats().Bytes)
	}
	if _, err := os.Stat(s.path(desc, ".data")); err == nil {
		t.Error("its file is there")
	}
	x.Release()
	if n := s.cache.Stats().Bytes; n != 0 {
		t.Errorf("%d bytes at the end", n)
	}
}

// What is half fetched is not dropped under whoever fetches it, and is when nobody
// does.
func TestPartial(t *testing.T) {
	s := newStore(t, cache.Config{})
	desc := ocispec.Descriptor{Digest: digest.FromString("never complete"), Size: 50_000}
	x, err := s.cache.Hold("registry.example", desc)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Store(t.Context(), cachetest.Random(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	g := gc.New(s.cache, s.index, gc.Config{Layers: gc.Ages{MaxAge: time.Nanosecond, MaxUnused: time.Nanosecond}})
	if r := s.collect(g); r.Age != 0 {
		t.Errorf("%+v: dropped while it is fetched", r)
	}
	if r, err := g.Verify(t.Context(), nil); err != nil || r.Scrubbed != 0 || r.Corrupt != 0 {
		t.Errorf("Verify of what is half there = %+v, %v", r, err)
	}
	x.Release()
	if r := s.collect(g); r.Age != 1 || s.has(desc) || s.cache.Stats().Bytes != 0 {
		t.Errorf("%+v, %d bytes", r, s.cache.Stats().Bytes)
	}
}

// A scrub that is told to end leaves what it was reading as it is.
func TestScrubEnds(t *testing.T) {
	s := newStore(t, cache.Config{})
	for i := range 3 {
		s.blob(10_000, uint64(i))
	}
	g := gc.New(s.cache, s.index, gc.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := g.Verify(ctx, func(done, all int) {
		if done == 1 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || r.Scrubbed != 1 || len(s.cache.Blobs()) != 3 {
		t.Errorf("%+v, %v, %d blobs", r, err, len(s.cache.Blobs()))
	}
}

// Collections, comparisons and users do not disturb each other: whatever is read is
// right, and at the end nothing is left that should not be.
func TestBusy(t *testing.T) {
	s := newStore(t, cache.Config{MaxBytes: 2_000_000})
	g := gc.New(s.cache, s.index, gc.Config{
		MaxBytes: 2_000_000, LowMark: 0.3, Grace: time.Nanosecond,
		Layers: gc.Ages{MaxUnused: time.Millisecond}, Manifests: gc.Ages{MaxAge: time.Millisecond},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var duties, users sync.WaitGroup
	for _, work := range []func(){
		func() { _, _ = g.Collect(ctx) },
		func() {
			if r, _ := g.Verify(ctx, nil); r.Corrupt != 0 {
				t.Errorf("%+v: right bytes are called damaged", r)
			}
		},
	} {
		duties.Go(func() {
			for ctx.Err() == nil {
				work()
			}
		})
	}
	for w := range 4 {
		users.Go(func() {
			for n := range 60 {
				p := cachetest.Random(40_000, uint64((n+w)%20))
				desc := ocispec.Descriptor{Digest: digest.FromBytes(p), Size: int64(len(p))}
				x, err := s.cache.Hold("registry.example", desc)
				if err != nil {
					t.Error(err)
					return
				}
				if err := x.Store(ctx, p, 0); err == nil && x.Complete() {
					_ = x.MarkVerified()
				}
				s.link("v1", desc, time.Now())
				got := make([]byte, len(p))
				if n, err := x.ReadAt(got, 0); err == nil && digest.FromBytes(got[:n]) != desc.Digest {
					t.Error("wrong bytes")
				}
				x.Release()
			}
		})
	}
	users.Wait()
	cancel()
	duties.Wait()
	if _, err := s.cache.Sweep(t.Context(), 0); err != nil {
		t.Error(err)
	}
	for _, b := range s.cache.Blobs() {
		if _, err := s.cache.Remove(b.Key); err != nil {
			t.Error(err)
		}
	}
	if n := s.cache.Stats().Bytes; n != 0 {
		t.Errorf("%d bytes are accounted for and not there", n)
	}
}
