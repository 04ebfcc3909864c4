package prefetch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

const chain3 = "../../../backstore/testdata/vectors/small-chain3/"

// world is a registry with one repository, and a node that reads from it.
type world struct {
	t   testing.TB
	ref string

	mu        sync.Mutex
	content   map[string][]byte // by digest
	referrers []ocispec.Descriptor
	down      bool
	gate      chan struct{} // if not nil, blobs wait for it
	requests  int

	chain    *chain.Chain
	client   *registry.Client
	outcomes chan outcome
	skipped  []string
}

// outcome is what the observer was told.
type outcome struct {
	prefetch.Outcome
	stats replay.Stats
	err   error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, content: map[string][]byte{}, outcomes: make(chan outcome, 100)}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.ref = strings.TrimPrefix(s.URL, "http://") + "/team/app:1"
	stored, err := cache.Open(cache.Config{Dir: t.TempDir(), MaxBytes: 64 << 20})
	w.must(err)
	t.Cleanup(func() { stored.Close() })
	w.client, err = registry.New(registry.Config{DockerConfig: filepath.Join(t.TempDir(), "none.json")})
	w.must(err)
	t.Cleanup(func() { w.client.Close() })
	w.chain = chain.New(w.client, chain.Config{
		Cache: stored, Retry: blob.RetryConfig{Base: time.Millisecond, Max: 10 * time.Millisecond, Deadline: 20 * time.Second},
		Limit: blob.LimitConfig{Requests: 8, Background: 4},
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ServeHTTP(rw http.ResponseWriter, q *http.Request) {
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	content, ok := w.content[path.Base(q.URL.Path)]
	switch {
	case w.down:
		http.Error(rw, "down", http.StatusServiceUnavailable)
	case strings.Contains(q.URL.Path, "/referrers/"):
		rw.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_ = json.NewEncoder(rw).Encode(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: w.referrers,
		})
	case !ok:
		http.NotFound(rw, q)
	default:
		if strings.Contains(q.URL.Path, "/manifests/") {
			rw.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		}
		http.ServeContent(rw, q, "", time.Time{}, bytes.NewReader(content))
	}
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) put(content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	w.set(func() { w.content[desc.Digest.String()] = content })
	return desc
}

// image puts the layers of a vector of upstream's tools into the registry, with
// chunk tables.
func (w *world) image() backstore.Image {
	w.t.Helper()
	img := backstore.Image{Ref: w.ref}
	for _, name := range []string{"L0.lz4-4k.tar", "L1.lz4-4k.tar"} {
		data, err := os.ReadFile(chain3 + name)
		w.must(err)
		file := filepath.Join(w.t.TempDir(), name)
		w.must(os.WriteFile(file, data, 0o600))
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		w.must(err)
		table, dgst, size, err := backstore.AppendChunks(w.t.Context(), f, int64(len(data)))
		w.must(errors.Join(err, f.Close()))
		data, err = os.ReadFile(file)
		w.must(err)
		w.put(data)
		img.Layers = append(img.Layers, backstore.Layer{Digest: dgst, Size: size, Annotations: labels.WithChunks(table)})
	}
	return img
}

// readers returns the layers of img as something else than w's chain reads them.
func (w *world) readers(img backstore.Image) []blob.ReaderAt {
	var layers []blob.ReaderAt
	for _, l := range img.Layers {
		layers = append(layers, bytesOf(w.content[l.Digest.String()]))
	}
	return layers
}

// bytesOf is a blob in memory.
type bytesOf []byte

func (b bytesOf) Size() int64 { return int64(len(b)) }

func (b bytesOf) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}

// start is what opening img and reading a part of it reads.
func (w *world) start(img backstore.Image) tracelayer.Trace {
	w.t.Helper()
	r := tracelayer.NewRecorder(0)
	dev, err := backstore.OpenRecorded(w.t.Context(), w.readers(img), r)
	w.must(err)
	readStart(w.t, dev)
	return r.Stop()
}

func readStart(t testing.TB, dev blob.ReaderAt) {
	t.Helper()
	p := make([]byte, 16<<10)
	for off := int64(0); off+int64(len(p)) <= dev.Size()/2; off += int64(2 * len(p)) {
		if _, err := dev.ReadAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
	}
}

// contents returns what a trace layer of img is made of.
func (w *world) contents(img backstore.Image) tracelayer.Contents {
	w.t.Helper()
	var layers []fetchplan.Layer
	for i, r := range w.readers(img) {
		l := img.Layers[i]
		table, err := labels.Chunks(l.Annotations)
		w.must(err)
		layers = append(layers, fetchplan.Layer{Digest: l.Digest, Size: l.Size, Blob: r, Table: table})
	}
	trace := w.start(img)
	var data bytes.Buffer
	plan, _, err := fetchplan.Build(w.t.Context(), layers, trace, &data)
	w.must(err)
	encoded, err := plan.Encode()
	w.must(err)
	return tracelayer.Contents{Slot: trace.Encode(), Plan: encoded, Data: &data, DataSize: int64(data.Len())}
}

// trace puts a trace layer into the registry.
func (w *world) trace(c tracelayer.Contents) *backstore.TraceLayer {
	w.t.Helper()
	var layer bytes.Buffer
	info, err := tracelayer.WriteLayer(&layer, c)
	w.must(err)
	w.put(layer.Bytes())
	return &backstore.TraceLayer{Layer: backstore.Layer{Digest: info.Digest, Size: info.Size, Annotations: labels.WithPlan(info.Plan)}, Plan: info.Plan}
}

// unpack writes what containerd makes of a trace layer.
func (w *world) unpack(c tracelayer.Contents) string {
	w.t.Helper()
	dir := w.t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, tracelayer.SlotName), c.Slot, 0o444))
	if c.Plan != nil {
		w.must(os.WriteFile(filepath.Join(dir, tracelayer.PlanName), c.Plan, 0o444))
	}
	if c.Data != nil {
		var data bytes.Buffer
		_, err := data.ReadFrom(c.Data)
		w.must(err)
		w.must(os.WriteFile(filepath.Join(dir, tracelayer.DataName), data.Bytes(), 0o444))
	}
	return dir
}

// Prefetched implements prefetch.Observer.
func (w *world) Prefetched(_ string, o prefetch.Outcome, s replay.Stats, err error) {
	w.outcomes <- outcome{o, s, err}
}

// Skipped implements prefetch.Observer.
func (w *world) Skipped(_ string, why error) {
	w.set(func() { w.skipped = append(w.skipped, why.Error()) })
}

// told checks that one thing was left out so far, and that it was told.
func (w *world) told(what string) {
	w.t.Helper()
	w.set(func() {
		if len(w.skipped) != 1 || !strings.Contains(w.skipped[0], what) {
			w.t.Errorf("told of %q, want %q", w.skipped, what)
		}
	})
}

// run runs a Prefetcher for the time of the test.
func (w *world) run(finder *prefetch.Finder) *prefetch.Prefetcher {
	w.t.Helper()
	return w.begin(prefetch.New(w.chain, finder, w, prefetch.Config{Parallel: 2}))
}

// runSource runs one that reads from source.
func (w *world) runSource(source prefetch.Source, cfg prefetch.Config) *prefetch.Prefetcher {
	w.t.Helper()
	return w.begin(prefetch.New(source, nil, w, cfg))
}

func (w *world) begin(p *prefetch.Prefetcher) *prefetch.Prefetcher {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	})
	return p
}

// next returns what the observer is told next.
func (w *world) next() outcome {
	w.t.Helper()
	select {
	case o := <-w.outcomes:
		return o
	case <-w.t.Context().Done():
		return outcome{}
	}
}

// idle waits until p has nothing to do.
func (w *world) idle(p *prefetch.Prefetcher) {
	for !p.Idle() && w.t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// offline starts img while the registry is down: all it needs must be cached.
func (w *world) offline(img backstore.Image) {
	w.t.Helper()
	w.set(func() { w.down = true })
	defer w.set(func() { w.down = false })
	var layers []blob.ReaderAt
	for _, l := range img.Layers {
		b, err := w.chain.Open(w.ref, l.Descriptor())
		w.must(err)
		layers = append(layers, b)
	}
	dev, err := backstore.Open(w.t.Context(), layers)
	w.must(err)
	readStart(w.t, dev)
}
