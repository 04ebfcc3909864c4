package registrycache_test

import (
	"bufio"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/policy"
)

// recorded is where 725242 GETs of a public registry are, one URI a line, in
// the order they came. It is not part of the source tree.
const recorded = "../../../shared/data/ibm-registry-gets-725k.csv.zst"

// recordedBlobs returns the URIs of blobs that were read, in order, with the
// number of different ones.
func recordedBlobs(t *testing.T) (uris []string, distinct int) {
	t.Helper()
	f, err := os.Open(recorded)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recorded requests beside the source tree: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	seen := map[string]bool{}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		u := strings.Clone(lines.Text())
		if dir, _, ok := strings.Cut(u, "/blobs/"); ok && strings.HasPrefix(dir, "v2/") {
			uris = append(uris, u)
			seen[u] = true
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return uris, len(seen)
}

// shares are the sizes of the cache, as parts of the distinct objects.
var shares = []float64{0.01, 0.02, 0.04, 0.10}

// published are the hit ratios of LRU on these blobs, keyed by the whole URI,
// at the same shares: what others found with the same file.
var published = []float64{.400, .451, .508, .553}

// simulate returns the share of ids found in a cache that has room for so many.
func simulate[K comparable](t *testing.T, name string, ids []K, room int) float64 {
	t.Helper()
	p, err := policy.New[K](name)
	if err != nil {
		t.Fatal(err)
	}
	have := map[K]bool{}
	hits := 0
	for _, id := range ids {
		if have[id] {
			hits++
			p.Touch(id, 1)
			continue
		}
		if x, ok := p.(policy.Expectant[K]); ok {
			x.Expect(id)
		}
		if len(have) == room {
			k, _, ok := p.Victim()
			if !ok {
				t.Fatal("the policy has nothing to give up")
			}
			delete(have, k)
		}
		have[id] = true
		p.Add(id, 1)
	}
	return float64(hits) / float64(len(ids))
}

// TestSimulator holds the simulator against ratios that others found.
func TestSimulator(t *testing.T) {
	t.Parallel()
	uris, distinct := recordedBlobs(t)
	for i, share := range shares {
		got := simulate(t, policy.NameLRU, uris, int(share*float64(distinct)))
		if math.Abs(got-published[i]) > 0.0015 {
			t.Errorf("LRU with room for %.0f %% of the blobs: %.4f are hits, published are %.3f", 100*share, got, published[i])
		}
	}
}

// body returns the few bytes that stand for a recorded blob.
func body(id string) ([]byte, ocispec.Descriptor) {
	b := []byte("blob " + id)
	return b, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// memoryDir returns a folder that is in memory where there is such a place: the
// engine makes each blob durable, and 150000 of them are minutes of a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "reprise-trial-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// costOfOne returns the disk space that the engine counts for a small blob.
func costOfOne(t *testing.T) int64 {
	t.Helper()
	c, err := cache.Open(cache.Config{Dir: filepath.Join(memoryDir(t), "c"), WholeBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := engine{t, c}
	e.get("00000000")
	return c.Stats().Bytes
}

// engine reads recorded blobs through a cache.
type engine struct {
	t *testing.T
	c *cache.Cache
}

// get reads a blob and reports whether the cache had it.
func (e engine) get(id string) bool {
	want, desc := body(id)
	got := make([]byte, len(want))
	if x, ok := e.c.Find("upstream", desc.Digest); ok {
		defer x.Release()
		if !x.Verified() {
			e.t.Fatalf("blob %s is there and not verified", id)
		}
		if _, err := x.ReadAt(got, 0); err != nil || string(got) != string(want) {
			e.t.Fatalf("blob %s is %q, %v", id, got, err)
		}
		return true
	}
	x, err := e.c.Hold("upstream", desc)
	if err != nil {
		e.t.Fatalf("holding blob %s: %v", id, err)
	}
	defer x.Release()
	if err := x.Store(e.t.Context(), want, 0); err != nil {
		e.t.Fatalf("storing blob %s: %v", id, err)
	}
	if err := x.MarkVerified(); err != nil {
		e.t.Fatal(err)
	}
	return false
}

// TestReplayEngine replays what a registry was asked for through the engine, and
// finds as many hits as a simulator with the same policy and room. Without
// TRIAL=full it replays the first eighth.
func TestReplayEngine(t *testing.T) {
	ids, _ := recordedBlobs(t)
	if os.Getenv("TRIAL") != "full" {
		ids = ids[:len(ids)/8]
	}
	distinct := map[string]bool{}
	for i, uri := range ids {
		_, ids[i], _ = strings.Cut(uri, "/blobs/")
		distinct[ids[i]] = true
	}
	cost := costOfOne(t)
	t.Logf("%d reads of %d blobs that take %d bytes each", len(ids), len(distinct), cost)
	for _, name := range policy.Names() {
		for _, share := range []float64{0.01, 0.10} {
			room := int(share * float64(len(distinct)))
			want := simulate(t, name, ids, room)
			got := replay(t, name, ids, int64(room)*cost)
			t.Logf("%-6s with room for %2.0f %%: %.4f are hits, %.4f in the simulator", name, 100*share, got, want)
			if math.Abs(got-want) > 0.005 {
				t.Errorf("%s with room for %d blobs: %.4f are hits, %.4f in the simulator", name, room, got, want)
			}
		}
	}
}

func replay(t *testing.T, name string, ids []string, limit int64) float64 {
	c, err := cache.Open(cache.Config{Dir: filepath.Join(memoryDir(t), "c"), WholeBlobs: true, Policy: name, MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e, hits := engine{t, c}, 0
	for _, id := range ids {
		if e.get(id) {
			hits++
		}
	}
	return float64(hits) / float64(len(ids))
}
