package tamper_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// layer is a layer blob with its chunk table.
type layer struct {
	disk []byte
	data []byte
	ref  chunks.Ref
	desc ocispec.Descriptor
}

// text returns n bytes that compress, and some blocks that do not.
func text(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("the quick brown fox jumps over lazy dogs while lsmt zfile tar registries serve blocks of bytes")
	var b bytes.Buffer
	for b.Len() < n {
		switch rng.IntN(400) {
		case 0:
			b.Write(noise(rng))
		case 1:
			b.Write(make([]byte, 8192))
		default:
			b.WriteString(words[rng.IntN(len(words))])
			b.WriteByte(byte(rng.Uint32()))
		}
	}
	return b.Bytes()[:n]
}

// noise returns a block that does not compress.
func noise(rng *rand.Rand) []byte {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// inMemory is a disk.
type inMemory []byte

func (m inMemory) Size() int64 { return int64(len(m)) }
func (m inMemory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// pack makes a layer of disk as a convertor does.
func pack(t testing.TB, disk []byte, opts zfile.Options) layer {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = backstore.WriteLayer(f, opts, func(w io.Writer) error {
		return lsmt.CommitDisk(t.Context(), w, inMemory(disk), lsmt.DiskOptions{KeepZeros: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	ref, sum, size, err := backstore.AppendChunks(t.Context(), f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return layer{disk, data, ref, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: sum, Size: size,
	}}
}

// host is a registry, or a mirror of one, that serves one blob.
type host struct {
	name string // host:port

	mu       sync.Mutex
	data     []byte
	flip     int64 // bit that is served wrong; -1: none
	down     bool
	requests int
}

func newHost(t testing.TB, data []byte) *host {
	h := &host{data: data, flip: -1}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.name = strings.TrimPrefix(s.URL, "http://")
	return h
}

// origin is what the registry client calls the host.
func (h *host) origin() string { return "http://" + h.name }

func (h *host) set(f func(h *host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

// ServeHTTP implements http.Handler.
func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	data, flip, down := h.data, h.flip, h.down
	h.requests++
	h.mu.Unlock()
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, &flipping{*bytes.NewReader(data), flip})
}

// flipping reads bytes of which one bit is wrong.
type flipping struct {
	bytes.Reader
	flip int64
}

// WriteTo would go past Read.
func (f *flipping) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

func (f *flipping) Read(p []byte) (int, error) {
	off := f.Size() - int64(f.Len())
	n, err := f.Reader.Read(p)
	if at := f.flip/8 - off; f.flip >= 0 && at >= 0 && at < int64(n) {
		p[at] ^= 1 << (f.flip % 8)
	}
	return n, err
}

// node reads layers from a registry, through a cache.
type node struct {
	client *registry.Client
	cache  *cache.Cache // nil: none
	ref    string

	mu     sync.Mutex
	failed map[string]int // by origin
}

// newNode returns a node whose registry is the last of the hosts, the others
// mirrors of it in the order in which they are tried.
func newNode(t testing.TB, hosts ...*host) *node {
	t.Helper()
	reg := hosts[len(hosts)-1]
	root := t.TempDir()
	toml := fmt.Sprintf("server = %q\n", reg.origin())
	for _, m := range hosts[:len(hosts)-1] {
		toml += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\"]\n", m.origin())
	}
	dir := filepath.Join(root, strings.Replace(reg.name, ":", "_", 1)+"_")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := registry.New(registry.Config{
		HostsDir: root, DockerConfig: filepath.Join(root, "none.json"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	stored, err := cache.Open(cache.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stored.Close() })
	return &node{client: c, cache: stored, ref: reg.name + "/app:1", failed: map[string]int{}}
}

// VerifyFailed implements chunks.Observer.
func (n *node) VerifyFailed(_ digest.Digest, _, _, _ int64, origin string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failed[origin]++
}

// failures returns how often each origin served something wrong since the last
// call.
func (n *node) failures() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.failed
	n.failed = map[string]int{}
	return f
}

// open opens the blob of l as programs do, with nothing of it cached, verified if
// there is a reference to a table.
func (n *node) open(t testing.TB, l layer, ref chunks.Ref) blob.Blob {
	t.Helper()
	b := n.reopen(t, l, ref)
	blob.Discard(b, 0, b.Size())
	return b
}

// reopen is open with what earlier reads left in the cache, and only that: it is
// another chain.
func (n *node) reopen(t testing.TB, l layer, ref chunks.Ref) blob.Blob {
	t.Helper()
	desc := l.desc
	desc.Annotations = labels.WithChunks(ref)
	b, err := chain.New(n.client, chain.Config{
		Cache:          n.cache,
		Retry:          blob.RetryConfig{Attempts: 2, Base: time.Millisecond, Max: time.Millisecond},
		VerifyFailures: n,
	}).Open(n.ref, desc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read reads the whole device, as far as it goes.
func read(ctx context.Context, b blob.Blob) ([]byte, error) {
	image, err := backstore.Open(ctx, []blob.ReaderAt{b})
	if err != nil {
		return nil, err
	}
	disk := make([]byte, image.Size())
	for off := 0; off < len(disk); off += 256 << 10 {
		p := disk[off:min(off+256<<10, len(disk))]
		if n, err := image.ReadAt(ctx, p, int64(off)); n < len(p) {
			return disk[:off+n], err
		}
	}
	return disk, nil
}
