package index_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

func tag(n int) index.Key {
	return index.Key{Scheme: "https", Host: "registry.example", Repository: "app", Kind: index.KindManifests, Reference: fmt.Sprint("v", n)}
}

func linkOf(n, version int) index.Link {
	at := time.Unix(1_700_000_000+int64(version), 0).UTC()
	return index.Link{
		Key:        tag(n),
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(n, version)), Size: 100},
		Header:     map[string]string{"OCI-Filters-Applied": "artifactType"},
		FetchedAt:  at, CheckedAt: at, LastUsed: at,
	}
}

func same(a, b index.Link) bool {
	a.LastUsed, b.LastUsed = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}

// run runs i until the function returned is called.
func run(t *testing.T, i *index.Index) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := i.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

func open(t *testing.T, dir string, cfg index.Config) *index.Index {
	t.Helper()
	i, err := index.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func put(t *testing.T, i *index.Index, l index.Link) {
	t.Helper()
	if err := i.Put(l); err != nil {
		t.Fatal(err)
	}
}

// Links are found at once, after a restart, and while that is still reading.
func TestLinks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	i := open(t, dir, index.Config{})
	for n := range 20 {
		put(t, i, linkOf(n, 1))
		put(t, i, linkOf(n, 2))
	}
	if _, err := index.Open(dir, index.Config{}); !errors.Is(err, index.ErrInUse) {
		t.Errorf("a second Open = %v", err)
	}
	i.Remove(tag(3))
	if l, ok := i.Lookup(tag(4)); !ok || !same(l, linkOf(4, 2)) {
		t.Errorf("Lookup = %+v, %v", l, ok)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}

	j := open(t, dir, index.Config{})
	if l, ok := j.Lookup(tag(5)); !ok || !same(l, linkOf(5, 2)) || !l.LastUsed.Equal(linkOf(5, 2).LastUsed) {
		t.Errorf("before the scan, Lookup = %+v, %v", l, ok)
	}
	put(t, j, linkOf(6, 3))
	j.Remove(tag(7))
	if _, ok := j.Lookup(tag(7)); ok {
		t.Error("what was removed is found, before the scan")
	}
	stop := run(t, j)
	for !j.Scanned() {
		time.Sleep(time.Millisecond)
	}
	for n := range 20 {
		want, removed := linkOf(n, 2), n == 3 || n == 7
		if n == 6 {
			want = linkOf(6, 3)
		}
		if l, ok := j.Lookup(tag(n)); ok == removed || ok && !same(l, want) {
			t.Errorf("link %d is %+v, %v", n, l, ok)
		}
	}
	if to := j.To(linkOf(6, 3).Descriptor.Digest); len(to) != 1 || to[0].Key != tag(6) {
		t.Errorf("To = %v", to)
	}
	if to := j.To(linkOf(6, 2).Descriptor.Digest); len(to) != 0 {
		t.Errorf("To what it was before = %v", to)
	}
	if len(j.Links()) != 18 || j.Len() != 18 {
		t.Errorf("%d links", j.Len())
	}
	stop()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// Keys that differ in anything are different, whatever is in the names.
func TestKeys(t *testing.T) {
	seen := make(map[string]index.Key)
	parts := []string{"", "a", "a/b", `a","b`, "../../etc/passwd", "a\x00b", strings.Repeat("x", 5000), "ä"}
	for _, a := range parts {
		for _, b := range parts {
			for _, k := range []index.Key{
				{Host: a, Repository: b}, {Repository: a, Kind: b}, {Kind: a, Reference: b}, {Reference: a, Accept: b}, {Scheme: a, Host: b},
			} {
				id := k.ID()
				if old, ok := seen[id]; ok && old != k {
					t.Errorf("%+v and %+v have the same ID", old, k)
				}
				seen[id] = k
				if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
					t.Errorf("ID %q of %+v", id, k)
				}
			}
		}
	}
}

// Of more links than there may be, those go that were not used.
func TestMaxLinks(t *testing.T) {
	i := open(t, filepath.Join(t.TempDir(), "index"), index.Config{MaxLinks: 50})
	defer i.Close()
	for n := range 500 {
		put(t, i, linkOf(n, n))
	}
	if i.Len() != 50 {
		t.Errorf("%d links, want 50", i.Len())
	}
	if _, ok := i.Lookup(tag(499)); !ok {
		t.Error("the newest link is gone")
	}
}

// Damaged files are removed, foreign ones after a grace, and what a link of the
// file system points to stays.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	i := open(t, dir, index.Config{})
	for n := range 10 {
		put(t, i, linkOf(n, 1))
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	file := func(n int) string { id := tag(n).ID(); return filepath.Join(dir, id[:2], id+".json") }
	data, err := os.ReadFile(file(0))
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	shard := filepath.Dir(file(0))
	for name, content := range map[string][]byte{
		file(1): data, file(2): data[:20], outside: data, filepath.Join(dir, "x"): data,
		filepath.Join(shard, "README"): data, file(3) + ".tmp": data,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(shard, strings.Repeat("0", 64)+".json")); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, index.Config{})
	stop := run(t, j)
	for !j.Scanned() {
		time.Sleep(time.Millisecond)
	}
	stop()
	if j.Len() != 8 {
		t.Errorf("%d links, want 8: two are damaged", j.Len())
	}
	if err := os.Remove(file(4)); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	if s, err := j.Sweep(t.Context(), time.Hour); err != nil || s.Undesired != 1 || s.Restored != 1 || s.Damaged != 2 { // links have no age
		t.Errorf("Sweep of young files = %+v, %v", s, err)
	}
	if s, err := j.Sweep(t.Context(), 0); err != nil || s.Undesired != 3 || s.Restored != 0 || s.Damaged != 0 {
		t.Errorf("Sweep = %+v, %v", s, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file(4)); err != nil {
		t.Errorf("the link without a file was not saved again: %v", err)
	}
	for _, name := range []string{file(1), file(2)} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("a damaged file is still there")
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

// A disk that fails costs durability, for as long as it does.
func TestFailingDisk(t *testing.T) {
	files := disktest.New(1 << 30)
	var broken atomic.Bool
	files.Fault = func(op disktest.Op) error {
		if broken.Load() && op.Kind == "WriteFile" {
			return errors.New("boom")
		}
		return nil
	}
	told := 0
	i, err := index.OpenOn(files, index.Config{OnError: func(error) { told++ }})
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	put(t, i, linkOf(1, 1))
	first, second := i.Flush(), i.Flush()
	if first == nil || second == nil || told != 1 {
		t.Errorf("told %d times of a disk that fails", told)
	}
	if _, ok := i.Lookup(tag(1)); !ok {
		t.Error("the link is gone")
	}
	broken.Store(false)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	j, err := index.OpenOn(files, index.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := j.Lookup(tag(1)); !ok {
		t.Error("the link was not saved")
	}
}

var errCrashed = errors.New("the machine has stopped")

// stopping returns a disk that stops at its n-th write step; count is how many it was
// asked for.
func stopping(n int) (files *disktest.FS, count *atomic.Int64) {
	files, count = disktest.New(1<<30), new(atomic.Int64)
	files.Fault = func(op disktest.Op) error {
		if !op.Looks() && op.Kind != "Lock" && count.Add(1) >= int64(n) {
			return errCrashed
		}
		return nil
	}
	return files, count
}

// TestCrash stops the disk at every write step. What is found afterwards is what
// the link was at some time, and what was flushed and not changed is found.
func TestCrash(t *testing.T) {
	for n := 1; ; n++ {
		files, count := stopping(n)
		i, err := index.OpenOn(files, index.Config{})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		flushed := make(map[int]int) // version by number
		last := make(map[int]int)
		for round := range 8 {
			for range 5 {
				k := rng.IntN(6)
				if rng.IntN(5) == 0 {
					i.Remove(tag(k))
					last[k] = -1
				} else {
					put(t, i, linkOf(k, round))
					last[k] = round
				}
			}
			if i.Flush() == nil {
				for k, v := range last {
					flushed[k] = v
				}
				clear(last)
			}
		}
		for name, left := range map[string]*disktest.FS{"kill": files.Kill(), "power cut": files.Crash(rng)} {
			j, err := index.OpenOn(left, index.Config{})
			if err != nil {
				t.Fatal(err)
			}
			for k := range 6 {
				l, ok := j.Lookup(tag(k))
				_, changed := last[k]
				if want, known := flushed[k]; known && !changed && (ok != (want >= 0) || ok && !same(l, linkOf(k, want))) {
					t.Fatalf("after a %s at step %d: link %d is %+v, %v, want version %d", name, n, k, l, ok, want)
				}
			}
		}
		if steps := int(count.Load()); steps < n {
			t.Logf("%d steps", n)
			return
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"key":{"scheme":"https","host":"h","repository":"r","kind":"manifests","reference":"v1"},"descriptor":{"mediaType":"a","digest":"","size":1}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		id := tag(1).ID()
		if l, err := index.Parse(data, id); err == nil && (l.Key.ID() != id || l.Descriptor.Size < 0) {
			t.Errorf("%+v is taken for the link of %s", l, id)
		}
	})
}
