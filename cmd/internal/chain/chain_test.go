package chain_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// server answers every blob request with a range of data, and returns its host
// and the number of requests so far.
func server(t *testing.T, data []byte) (host string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), requests
}

func newChain(t *testing.T, cfg chain.Config) *chain.Chain {
	t.Helper()
	client, err := registry.New(registry.Config{DockerConfig: filepath.Join(t.TempDir(), "none.json")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := cache.Open(cache.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	cfg.Cache = c
	return chain.New(client, cfg)
}

func openBlob(t *testing.T, c *chain.Chain, ref string, desc ocispec.Descriptor) blob.Blob {
	t.Helper()
	b, err := c.Open(ref, desc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, b blob.Blob, n int, off int64) string {
	t.Helper()
	p := make([]byte, n)
	if got, err := b.ReadAt(t.Context(), p, off); got != n {
		t.Fatalf("read %d of %d bytes at %d: %v", got, n, off, err)
	}
	return string(p)
}

// What is read twice is fetched once; the observers see one read each for
// every read and one for every request.
func TestReadThrough(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	host, requests := server(t, data)
	var above, below atomic.Int64
	count := func(n *atomic.Int64) blob.Observer {
		return blob.ObserverFunc(func(int, time.Duration, error, blob.Priority) { n.Add(1) })
	}
	c := newChain(t, chain.Config{CacheReads: count(&above), OriginReads: count(&below)})
	b := openBlob(t, c, host+"/app:1", ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))})
	if requests.Load() != 0 {
		t.Error("opening asked the registry")
	}
	for range 2 {
		if got := read(t, b, 100, 1003); got != string(data[1003:1103]) {
			t.Errorf("read %q", got)
		}
	}
	if above.Load() != 2 || below.Load() != 1 || requests.Load() != 1 {
		t.Errorf("%d reads, %d requests seen, %d made", above.Load(), below.Load(), requests.Load())
	}
	if !blob.Present(b, 1003, 100) || blob.Present(b, 0, 100) {
		t.Error("presence is not that of the cache")
	}
	if !blob.Discard(b, 1003, 100) || blob.Present(b, 1003, 100) {
		t.Error("what was discarded is still there")
	}
}

// A registry that answers something else under the digest of another one's
// layer must not be able to give it to the other's images.
func TestLyingRegistry(t *testing.T) {
	good, evil := bytes.Repeat([]byte("good"), 5000), bytes.Repeat([]byte("evil"), 5000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(good), Size: int64(len(good))}
	goodHost, _ := server(t, good)
	evilHost, _ := server(t, evil)
	c := newChain(t, chain.Config{})
	if got := read(t, openBlob(t, c, evilHost+"/app", desc), 4, 0); got != "evil" {
		t.Fatalf("read %q", got)
	}
	if got := read(t, openBlob(t, c, goodHost+"/app", desc), 4, 0); got != "good" {
		t.Errorf("read %q of a registry that never said so", got)
	}
}

// Equal blobs in use are one; a manifest that lies about a size gets its own.
func TestShared(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	host, _ := server(t, data)
	c := newChain(t, chain.Config{})
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	liar := desc
	liar.Size -= 100
	first := openBlob(t, c, host+"/app:1", liar)
	second := openBlob(t, c, host+"/app:2", desc)
	if second.Size() != desc.Size {
		t.Errorf("blob has %d bytes, its descriptor says %d", second.Size(), desc.Size)
	}
	if again := openBlob(t, c, host+"/app:3", desc); again != second {
		t.Error("an equal blob in use was opened once more")
	}
	if openBlob(t, c, host+"/other:1", desc) == second {
		t.Error("a blob of another repository is the same")
	}
	read(t, second, 100, desc.Size-100)
	_ = first.Size() // in use until here
}
