package registrycache_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// collected is what `registry-cache gc` and `verify` report, by duty.
type collected map[string]int64

// collect runs a subcommand that reports.
func (r *rig) collect(args ...string) collected {
	r.t.Helper()
	out, err := r.cache.Command(r.ctx, append(args, "--json")...)
	var c collected
	if json.Unmarshal([]byte(out), &c) != nil {
		r.t.Fatalf("registry-cache %v printed %q: %v", args, out, err)
	}
	if damaged := c["corrupt"] > 0; (err != nil) != damaged {
		r.t.Errorf("registry-cache %v: %v, with %d damaged blobs", args, err, c["corrupt"])
	}
	return c
}

// did fails the test unless a duty had that much to do, and nothing else had.
func (c collected) did(t *testing.T, duty string, atLeast int64) {
	t.Helper()
	for _, d := range []string{"size", "age", "unused", "corrupt", "empty", "undesired", "orphans"} {
		switch n := c[d]; {
		case d == duty && n < atLeast:
			t.Errorf("%d by %s, want at least %d; in all: %v", n, d, atLeast, c)
		case d != duty && n != 0:
			t.Errorf("%d by %s, which was not planted; in all: %v", n, d, c)
		}
	}
}

// fileOf returns the path of a file of a blob: ".data", ".json".
func (r *rig) fileOf(d digest.Digest, extension string) string {
	r.t.Helper()
	var found string
	r.eventually("there is a "+extension+" of "+d.String(), func() bool {
		files, err := r.cache.Files()
		if err != nil {
			r.t.Fatal(err)
		}
		for name := range files {
			if strings.HasSuffix(name, d.Encoded()+extension) && !strings.Contains(name, "quarantine") {
				found = filepath.Join(r.cache.Data, name)
				return true
			}
		}
		return false
	})
	return found
}

// flush has the cache write down all that it knows, by restarting it.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.cache.Stop(); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cache.Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

// calm is a configuration in which only what is planted gives collection
// something to do.
func calm(over values) values {
	gc := values{
		"interval": "24h", "grace": "1h",
		"layers":    values{"maxAge": "0s", "maxUnused": "0s", "checkSHA": false},
		"manifests": values{"maxAge": "0s", "maxUnused": "0s"},
	}
	for k, v := range over {
		gc[k] = v
	}
	return values{"gc": gc}
}

// stocked is a cache with a few blobs and a manifest.
type stocked struct {
	*rig
	blobs    []*origin.Content
	manifest digest.Digest
}

func beginStocked(t *testing.T, gc values) *stocked {
	t.Helper()
	s := &stocked{rig: begin(t, calm(gc))}
	for i := range 4 {
		b := origin.Random(uint64(70+i), 2<<20)
		s.blobs = append(s.blobs, b)
		s.up.AddBlob("a/b", b)
	}
	s.manifest = s.up.AddManifest("a/b", "v1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	s.all()
	return s
}

// all reads everything.
func (s *stocked) all() {
	s.t.Helper()
	for _, b := range s.blobs {
		s.pull("", "a/b", b)
	}
	for _, ref := range []string{"v1", s.manifest.String()} {
		_, body, err := s.target("").Get(s.ctx, "a/b/manifests/"+ref, nil)
		if err != nil || digest.FromBytes(body) != s.manifest {
			s.t.Errorf("reading manifest %s: %q, %v", ref, body, err)
		}
	}
}

func TestCollectNothing(t *testing.T) {
	s := beginStocked(t, nil)
	s.collect("gc").did(t, "", 0)
	s.collect("verify").did(t, "", 0)
	s.up.Reset()
	s.all()
	if got := s.up.Stats(); got.Gets != 0 {
		t.Errorf("%d GETs upstream after a collection that had nothing to do", got.Gets)
	}
}

// TestCollectSize fills the cache to three times its size, and looks at the disk
// after each blob.
func TestCollectSize(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	r := begin(t, calm(values{"disk": values{"maxSize": "64MiB", "minFree": "0B"}}))
	var blobs []*origin.Content
	for i := range 24 {
		b := origin.Random(uint64(100+i), 8<<20)
		blobs = append(blobs, b)
		r.up.AddBlob("a/b", b)
		r.pull("", "a/b", b)
		files, err := r.cache.Files()
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, n := range files {
			sum += n
		}
		if sum > limit+1<<20 {
			t.Fatalf("%d bytes on disk after %d blobs, the limit is %d", sum, i+1, limit)
		}
	}
	if m, err := r.cache.Scrape(r.ctx); err != nil || m.Sum("reprise_registry_cache_evictions_total") < 10 {
		t.Errorf("evictions by size in the metrics: %v, %v; want 10 or more", m.Sum("reprise_registry_cache_evictions_total"), err)
	}
	for _, b := range blobs {
		r.pull("", "a/b", b)
	}
}

// TestCollectCorrupt inverts a byte of a file that is kept.
func TestCollectCorrupt(t *testing.T) {
	s := beginStocked(t, nil)
	s.restart()
	name := s.fileOf(s.blobs[1].Digest, ".data")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 1_000_000); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], 1_000_000); err != nil {
		t.Fatal(err)
	}
	s.collect("verify").did(t, "corrupt", 1)
	s.up.Reset()
	s.all()
	if c := s.up.Stats(); c.Gets != 1 {
		t.Errorf("%d GETs upstream, want one, of the damaged blob", c.Gets)
	}
	s.collect("verify").did(t, "", 0)
}

// TestScrub has the same found in the background.
func TestScrub(t *testing.T) {
	t.Parallel()
	s := beginStocked(t, values{"layers": values{"maxAge": "0s", "maxUnused": "0s", "checkSHA": true}, "scrubRate": "1GiB", "interval": "1s"})
	s.restart()
	name := s.fileOf(s.blobs[1].Digest, ".data")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(text, 0); err != nil {
		t.Fatal(err)
	}
	s.backdateVerification(s.blobs[1].Digest)
	s.eventually("the scrub found it", func() bool {
		m, err := s.cache.Scrape(s.ctx)
		return err == nil && m.Sum("reprise_registry_cache_collected_total", `reason="corrupt"`) >= 1
	})
	s.all()
}

// backdateVerification has a blob's last comparison be long ago: with the cache
// stopped, in its metadata.
func (r *rig) backdateVerification(d digest.Digest) {
	r.t.Helper()
	if err := r.cache.Stop(); err != nil {
		r.t.Fatal(err)
	}
	name := r.fileOf(d, ".json")
	text, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		r.t.Fatal(err)
	}
	m["verifiedAt"] = time.Now().Add(-365 * 24 * time.Hour)
	if text, err = json.Marshal(m); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cache.Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

// TestCollectEmpty takes files away from under what leads to them.
func TestCollectEmpty(t *testing.T) {
	s := beginStocked(t, nil)
	s.restart()
	for _, d := range []digest.Digest{s.blobs[0].Digest, s.manifest} {
		if err := os.Remove(s.fileOf(d, ".data")); err != nil {
			t.Fatal(err)
		}
	}
	s.all()
	for _, d := range []digest.Digest{s.blobs[0].Digest, s.manifest} {
		if err := os.Remove(s.fileOf(d, ".data")); err != nil {
			t.Fatal(err)
		}
	}
	s.collect("gc").did(t, "empty", 2)
	s.all()
}

// TestCollectUndesired puts files there that are none of the cache's: old ones
// go, young ones stay, and what a link leads to is nobody's business.
func TestCollectUndesired(t *testing.T) {
	s := beginStocked(t, nil)
	s.restart()
	dir := filepath.Dir(s.fileOf(s.blobs[0].Digest, ".data"))
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour)
	old := []string{filepath.Join(dir, "notes.txt"), filepath.Join(dir, "core.1234"), filepath.Join(dir, strings.Repeat("0", 64)+".data.tmp")}
	for _, name := range old {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
	young := filepath.Join(dir, "young.txt")
	if err := os.WriteFile(young, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "folder")); err != nil {
		t.Fatal(err)
	}
	s.collect("gc").did(t, "undesired", int64(len(old)))
	for _, name := range old {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s is still there", filepath.Base(name))
		}
	}
	for _, name := range []string{young, outside} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
	}
	s.up.Reset()
	s.all()
	if got := s.up.Stats(); got.Gets != 0 {
		t.Errorf("%d GETs upstream: something that was wanted went too", got.Gets)
	}
}

// TestCollectOrphans takes the metadata away from data.
func TestCollectOrphans(t *testing.T) {
	s := beginStocked(t, nil)
	// While it runs: what is left of a start before is removed by the scan.
	lost := s.fileOf(s.blobs[2].Digest, ".data")
	content, err := os.ReadFile(lost)
	if err != nil {
		t.Fatal(err)
	}
	hex := digest.FromString("an orphan").Encoded()
	orphan := filepath.Join(filepath.Dir(filepath.Dir(lost)), hex[:2], hex+".data")
	if err := os.MkdirAll(filepath.Dir(orphan), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(orphan, content, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(orphan, long, long); err != nil {
		t.Fatal(err)
	}
	c := s.collect("gc")
	if _, err := os.Stat(orphan); err == nil || c["orphans"] != 1 {
		t.Errorf("data without metadata: %v; the report is %v, want an orphan", err, c)
	}
	m, err := s.cache.Scrape(s.ctx)
	if err != nil || m.Sum("reprise_registry_cache_collected_total", `reason="orphan"`) != 1 {
		t.Errorf("the metrics know of no orphan (%v)", err)
	}
	if err := s.cache.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.fileOf(s.blobs[2].Digest, ".json")); err != nil {
		t.Fatal(err)
	}
	if err := s.cache.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.eventually("the start removed data without metadata", func() bool {
		_, err := os.Stat(lost)
		return err != nil
	})
	s.all()
}

// TestCollectAges has what is old, and what nobody asked for, go.
func TestCollectAges(t *testing.T) {
	for duty, layers := range map[string]values{
		"unused": {"maxAge": "0s", "maxUnused": "1s", "checkSHA": false},
		"age":    {"maxAge": "1s", "maxUnused": "0s", "checkSHA": false},
	} {
		t.Run(duty, func(t *testing.T) {
			t.Parallel()
			s := beginStocked(t, values{"layers": layers})
			sum := int64(0)
			s.eventually("all blobs went because of "+duty, func() bool {
				c := s.collect("gc")
				for _, other := range []string{"size", "corrupt", "empty", "undesired", "orphans"} {
					if c[other] != 0 {
						t.Fatalf("it went because of %s: %v", other, c)
					}
				}
				sum += c[duty]
				return sum >= int64(len(s.blobs))
			})
			s.all()
		})
	}
}

// TestRestartKeeps restarts and kills: what is verified is served without being
// fetched, at once.
func TestRestartKeeps(t *testing.T) {
	s := beginStocked(t, nil)
	s.restart()
	s.up.Reset()
	s.all()
	s.cache.Kill()
	if err := s.cache.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.all()
	if got := s.up.Stats(); got.Gets != 0 {
		t.Errorf("%d GETs upstream after restarts", got.Gets)
	}
}

// TestForeignDataPath has a folder that belongs to something else as dataPath.
func TestForeignDataPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := newCache(t, instance.Config{Data: dir, Upstream: "127.0.0.1:1"})
	if err := i.Launch(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-i.Done():
	case <-time.After(patience):
		t.Fatal("it took a folder that is not its own")
	}
	i.Forget()
	if _, err := os.Stat(filepath.Join(dir, "thesis.tex")); err != nil {
		t.Error(err)
	}
}
