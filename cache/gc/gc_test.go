package gc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cache/index"
)

// store is a cache and an index in folders of a test.
type store struct {
	t        *testing.T
	dir      string
	cache    *cache.Cache
	index    *index.Index
	stopScan func()
}

func newStore(t *testing.T, cfg cache.Config) *store {
	t.Helper()
	s := &store{t: t, dir: t.TempDir()}
	cfg.Dir, cfg.WholeBlobs = filepath.Join(s.dir, "content"), true
	s.open(cfg)
	t.Cleanup(s.close)
	return s
}

func (s *store) open(cfg cache.Config) {
	s.t.Helper()
	var err error
	if s.cache, err = cache.Open(cfg); err != nil {
		s.t.Fatal(err)
	}
	if s.index, err = index.Open(filepath.Join(s.dir, "index"), index.Config{}); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.index.Run(ctx) })
	for !s.index.Scanned() {
		time.Sleep(time.Millisecond)
	}
	s.stopScan = func() { cancel(); wg.Wait() }
}

func (s *store) close() {
	s.stopScan()
	if err := errors.Join(s.index.Close(), s.cache.Close()); err != nil {
		s.t.Error(err)
	}
}

// blob stores a verified blob and returns it.
func (s *store) blob(size int, seed uint64) ([]byte, ocispec.Descriptor) {
	s.t.Helper()
	p := cachetest.Random(size, seed)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(p), Size: int64(size)}
	x, err := s.cache.Hold("registry.example", desc)
	if err != nil {
		s.t.Fatal(err)
	}
	defer x.Release()
	if err := errors.Join(x.Store(s.t.Context(), p, 0), x.MarkVerified(), s.cache.Sync(s.t.Context())); err != nil {
		s.t.Fatal(err)
	}
	return p, desc
}

// link links a tag to what desc describes.
func (s *store) link(tag string, desc ocispec.Descriptor, at time.Time) index.Key {
	s.t.Helper()
	k := index.Key{Scheme: "https", Host: "registry.example", Repository: "app", Kind: index.KindManifests, Reference: tag}
	if err := s.index.Put(index.Link{Key: k, Descriptor: desc, FetchedAt: at, CheckedAt: at, LastUsed: at}); err != nil {
		s.t.Fatal(err)
	}
	return k
}

func (s *store) has(desc ocispec.Descriptor) bool {
	x, ok := s.cache.Find("registry.example", desc.Digest)
	if ok {
		x.Release()
	}
	return ok
}

// path returns the name of a file of a blob.
func (s *store) path(desc ocispec.Descriptor, ext string) string {
	hex := desc.Digest.Encoded()
	return filepath.Join(s.dir, "content", "blobs", "sha256", hex[:2], hex+ext)
}

func (s *store) collect(g *gc.Collector) gc.Report {
	s.t.Helper()
	r, err := g.Collect(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// Duty a: near the limit, the least used goes, down to the low mark, and nothing
// that is in use.
func TestSize(t *testing.T) {
	s := newStore(t, cache.Config{MaxBytes: 1_000_000, Policy: "lru"})
	var all []ocispec.Descriptor
	for i := range 10 {
		_, d := s.blob(90_000, uint64(i))
		all = append(all, d)
	}
	used, ok := s.cache.Find("", all[0].Digest)
	if !ok {
		t.Fatal("the first blob is gone")
	}
	defer used.Release()
	g := gc.New(s.cache, s.index, gc.Config{MaxBytes: 1_000_000, LowMark: 0.5})
	r := s.collect(g)
	if n := s.cache.Stats().Bytes; n > 500_000 || r.Size == 0 || r.Bytes == 0 {
		t.Errorf("%d bytes after %+v", n, r)
	}
	if !s.has(all[0]) || s.has(all[1]) || !s.has(all[9]) {
		t.Error("what is in use is gone, or what is oldest is there, or what is newest gone")
	}
	if again := s.collect(g); again.Size != 0 {
		t.Errorf("a collection with nothing to do evicts: %+v", again)
	}
	if st := g.Stats(); st.Size != r.Size || st.Collections != 2 || st.Last.IsZero() {
		t.Errorf("Stats = %+v", st)
	}
}

// Duty b: a damaged blob is found, set aside, and can be fetched again.
func TestCorrupt(t *testing.T) {
	s := newStore(t, cache.Config{})
	data, bad := s.blob(50_000, 1)
	_, good := s.blob(50_000, 2)
	f, err := os.OpenFile(s.path(bad, ".data"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{^data[40_000]}, 40_000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	g := gc.New(s.cache, s.index, gc.Config{})
	var told int
	r, err := g.Verify(t.Context(), func(done, all int) { told++ })
	if err != nil || r.Corrupt != 1 || r.Scrubbed != 2 || r.ScrubBytes != 100_000 || told != 2 {
		t.Errorf("Verify = %+v, %v, told %d times", r, err, told)
	}
	if s.has(bad) || !s.has(good) {
		t.Error("the damaged one is served, or the good one not")
	}
	if kept, err := os.ReadDir(filepath.Join(s.dir, "content", "quarantine")); err != nil || len(kept) != 1 {
		t.Errorf("%d in quarantine: %v", len(kept), err)
	}
	if _, again := s.blob(50_000, 1); again.Digest != bad.Digest || !s.has(again) {
		t.Error("it can't be stored again")
	}
	if st := g.Stats(); st.Corrupt != 1 || st.Scrubbed != 2 {
		t.Errorf("Stats = %+v", st)
	}
}

// The comparison is due at intervals, which survive a restart.
func TestScrubDue(t *testing.T) {
	s := newStore(t, cache.Config{})
	s.blob(20_000, 1)
	ctx, cancel := context.WithCancel(t.Context())
	g := gc.New(s.cache, s.index, gc.Config{CheckSHA: true, ScrubEvery: time.Nanosecond, Interval: time.Hour})
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Run(ctx) })
	for g.Stats().Scrubbed == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	wg.Wait()
	before := s.cache.Blobs()[0].VerifiedAt
	if err := s.cache.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.open(cache.Config{Dir: filepath.Join(s.dir, "content"), WholeBlobs: true})
	if after := s.cache.Blobs()[0].VerifiedAt; !after.Equal(before) {
		t.Errorf("verified at %v, after the restart %v", before, after)
	}
}

// Duty c: links whose content is gone, and blobs whose file is, are dropped.
func TestEmpty(t *testing.T) {
	s := newStore(t, cache.Config{})
	_, kept := s.blob(1000, 1)
	_, lost := s.blob(1000, 2)
	old := time.Now().Add(-time.Hour)
	keptKey, lostKey := s.link("kept", kept, old), s.link("lost", lost, old)
	if err := os.Remove(s.path(lost, ".data")); err != nil {
		t.Fatal(err)
	}
	fresh := s.link("fresh", ocispec.Descriptor{Digest: digest.FromString("not stored yet"), Size: 5}, time.Now())
	g := gc.New(s.cache, s.index, gc.Config{Grace: time.Minute})
	if r := s.collect(g); r.Empty != 2 {
		t.Errorf("%+v, want the blob and its link", r)
	}
	for k, want := range map[index.Key]bool{keptKey: true, lostKey: false, fresh: true} {
		if _, ok := s.index.Lookup(k); ok != want {
			t.Errorf("link %s is there: %v", k.Reference, ok)
		}
	}
}

// Duties d and e: files that should not be there go when they are old enough.
func TestFiles(t *testing.T) {
	s := newStore(t, cache.Config{})
	data, desc := s.blob(1000, 1)
	orphan := ocispec.Descriptor{Digest: digest.FromString("orphan")}
	if err := os.MkdirAll(filepath.Dir(s.path(orphan, "")), 0o700); err != nil {
		t.Fatal(err)
	}
	files := []string{s.path(orphan, ".data"), filepath.Join(s.dir, "content", "core"), filepath.Join(s.dir, "index", "junk")}
	for _, name := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := gc.New(s.cache, s.index, gc.Config{Grace: time.Hour})
	if r := s.collect(g); r.Orphans != 0 || r.Undesired != 0 {
		t.Errorf("young files are removed: %+v", r)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range files {
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.collect(g); r.Orphans != 1 || r.Undesired != 2 || r.Bytes == 0 {
		t.Errorf("%+v, want one orphan and two undesired files", r)
	}
	if !s.has(desc) {
		t.Error("a blob that is all right is gone")
	}
}

// Duty f: what is old, or was not used, is dropped, manifests by bounds of their
// own, and a wrong clock drops nothing.
func TestAges(t *testing.T) {
	s := newStore(t, cache.Config{})
	data, layer := s.blob(1000, 1)
	_, manifest := s.blob(500, 2)
	past := time.Now().Add(-30 * time.Minute)
	key := s.link("v1", manifest, time.Now())
	oldKey := s.link("old", manifest, past)
	future := s.link("future", manifest, time.Now().Add(24*time.Hour))
	cfg := gc.Config{Manifests: gc.Ages{MaxAge: 10 * time.Minute, MaxUnused: time.Hour}, Layers: gc.Ages{MaxAge: 24 * time.Hour}}
	if r := s.collect(gc.New(s.cache, s.index, cfg)); r.Age != 1 || r.Unused != 0 {
		t.Errorf("%+v, want one link dropped", r)
	}
	for k, want := range map[index.Key]bool{key: true, oldKey: false, future: true} {
		if _, ok := s.index.Lookup(k); ok != want {
			t.Errorf("link %s is there: %v", k.Reference, ok)
		}
	}
	held, ok := s.cache.Find("", layer.Digest)
	if !ok {
		t.Fatal("the layer is gone")
	}
	unused := gc.Config{Layers: gc.Ages{MaxUnused: time.Nanosecond}}
	if r := s.collect(gc.New(s.cache, s.index, unused)); r.Unused != 0 || !s.has(manifest) {
		t.Errorf("%+v: what is in use, or a manifest, was dropped as unused", r)
	}
	tooOld := gc.Config{Layers: gc.Ages{MaxAge: time.Nanosecond}}
	if r := s.collect(gc.New(s.cache, s.index, tooOld)); r.Age != 1 || s.has(layer) || !s.has(manifest) {
		t.Errorf("%+v, want the layer dropped and the manifest not", r)
	}
	p := make([]byte, 1000)
	if _, err := held.ReadAt(p, 0); err != nil && !strings.Contains(err.Error(), "EOF") || !bytes.Equal(p, data) {
		t.Errorf("who had it can't read it any more: %v", err)
	}
	held.Release()
}
