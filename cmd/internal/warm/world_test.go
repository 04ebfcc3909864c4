package warm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
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
	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/certs"
	"github.com/reprise-containers/reprise/cmd/internal/program"
	"github.com/reprise-containers/reprise/cmd/internal/warm"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

const vectors = "../../../backstore/testdata/vectors/small-chain3/"

// world is an upstream registry, and a registry cache before it with all its parts.
type world struct {
	t      testing.TB
	host   string // of the upstream
	url    string // of the cache
	chain  *cachechain.Chain
	layers []ocispec.Descriptor

	mu      sync.Mutex
	content map[string][]byte
	fetched map[string]int // bodies of blobs, by digest
	secret  string         // Authorization the upstream wants
}

func newWorld(t *testing.T, configure func(*cacheconfig.Cache)) *world {
	t.Helper()
	w := &world{t: t, content: map[string][]byte{}, fetched: map[string]int{}, secret: "Bearer token"}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.host = strings.TrimPrefix(s.URL, "http://")
	cfg := cacheconfig.Default()
	cfg.DataPath = t.TempDir()
	cfg.Server.DefaultBackend = cacheconfig.Backend{Host: w.host, Scheme: "http"}
	if configure != nil {
		configure(&cfg)
	}
	data, err := cachechain.OpenDataPath(cfg.DataPath)
	w.must(err)
	t.Cleanup(func() { data.Close() })
	keys, err := certs.New(certs.Files{}, nil, nil)
	w.must(err)
	w.chain, err = cachechain.Open(cfg, data, keys, cachechain.Watch{Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx, w.chain.Stages()...) }()
	front := httptest.NewServer(w.chain.Handler)
	w.url = front.URL
	t.Cleanup(func() {
		front.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the cache ended with %v", err)
		}
		if err := w.chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ServeHTTP is the upstream.
func (w *world) ServeHTTP(rw http.ResponseWriter, q *http.Request) {
	name := path.Base(q.URL.Path)
	w.mu.Lock()
	content, ok := w.content[name]
	if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
		w.fetched[name]++
	}
	w.mu.Unlock()
	switch {
	case q.Header.Get("Authorization") != w.secret:
		rw.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	case !ok:
		http.NotFound(rw, q)
		return
	case strings.Contains(q.URL.Path, "/manifests/"):
		rw.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		rw.Header().Set("Docker-Content-Digest", name)
	}
	http.ServeContent(rw, q, "", time.Time{}, bytes.NewReader(content))
}

// fetches returns how many bodies of blobs the upstream sent.
func (w *world) fetches() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.fetched {
		n += f
	}
	return n
}

func (w *world) put(mediaType string, content []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content[d.Digest.String()] = content
	return d
}

// image puts the layers of a vector of overlaybd's own tools into the registry, with
// chunk tables.
func (w *world) image() {
	w.t.Helper()
	for _, name := range []string{"L0.lz4-4k.tar", "L1.lz4-4k.tar"} {
		data, err := os.ReadFile(vectors + name)
		w.must(err)
		file := filepath.Join(w.t.TempDir(), name)
		w.must(os.WriteFile(file, data, 0o600))
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		w.must(err)
		table, _, _, err := backstore.AppendChunks(w.t.Context(), f, int64(len(data)))
		w.must(err)
		w.must(f.Close())
		data, err = os.ReadFile(file)
		w.must(err)
		d := w.put("application/vnd.oci.image.layer.v1.tar", data)
		d.Annotations = labels.WithChunks(table)
		w.layers = append(w.layers, d)
	}
}

// memory is a blob in memory.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// contents returns a trace layer of the image: what opening it and reading a part of
// it reads.
func (w *world) contents() (tracelayer.Contents, *tracelayer.Plan) {
	w.t.Helper()
	var layers []fetchplan.Layer
	var readers []blob.ReaderAt
	for _, d := range w.layers {
		table, err := labels.Chunks(d.Annotations)
		w.must(err)
		r := memory(w.content[d.Digest.String()])
		readers = append(readers, r)
		layers = append(layers, fetchplan.Layer{Digest: d.Digest, Size: d.Size, Blob: r, Table: table})
	}
	recorder := tracelayer.NewRecorder(0)
	dev, err := backstore.OpenRecorded(w.t.Context(), readers, recorder)
	w.must(err)
	p := make([]byte, 16<<10)
	for off := int64(0); off+int64(len(p)) <= dev.Size()/2; off += int64(2 * len(p)) {
		_, err := dev.ReadAt(w.t.Context(), p, off)
		w.must(err)
	}
	trace := recorder.Stop()
	var data bytes.Buffer
	plan, _, err := fetchplan.Build(w.t.Context(), layers, trace, &data)
	w.must(err)
	encoded, err := plan.Encode()
	w.must(err)
	return tracelayer.Contents{Slot: trace.Encode(), Plan: encoded, Data: &data, DataSize: int64(data.Len())}, plan
}

// trace puts a trace layer into the registry and returns its descriptor.
func (w *world) trace(c tracelayer.Contents) ocispec.Descriptor {
	w.t.Helper()
	var layer bytes.Buffer
	info, err := tracelayer.WriteLayer(&layer, c)
	w.must(err)
	d := w.put("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	d.Annotations = annotations(info)
	return d
}

func annotations(info tracelayer.LayerInfo) map[string]string {
	return labels.TraceBlob{Blob: info.Digest, BlobSize: info.Size, Plan: info.Plan}.Annotations()
}

// manifest puts a manifest into the registry.
func (w *world) manifest(m ocispec.Manifest) ocispec.Descriptor {
	w.t.Helper()
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	m.Config = w.put(ocispec.MediaTypeImageConfig, []byte("{}"))
	text, err := json.Marshal(m)
	w.must(err)
	return w.put(ocispec.MediaTypeImageManifest, text)
}

// get returns the answer of the cache to somebody who may have everything.
func (w *world) get(what, rng string) []byte {
	w.t.Helper()
	q, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+"/v2/team/app/"+what, nil)
	w.must(err)
	q.Header.Set("Authorization", w.secret)
	if rng != "" {
		q.Header.Set("Range", "bytes="+rng)
	}
	resp, err := http.DefaultClient.Do(q)
	w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	if resp.StatusCode >= 300 {
		w.t.Fatalf("GET %s: %s %.200s", what, resp.Status, body)
	}
	return body
}

// settle waits until so many images came to an end, and returns the counts.
func (w *world) settle(images int64) warm.Stats {
	w.t.Helper()
	for {
		s := w.chain.Warm.Stats()
		if s.Warmed+s.Invalid+s.Failed+s.Dropped >= images && s.Running == 0 {
			return s
		}
		select {
		case <-w.t.Context().Done():
			return s
		case <-time.After(time.Millisecond):
		}
	}
}

// golden puts the layers of one of the images into the registry that overlaybd's own
// tools made, if these are here.
func (w *world) golden(name string) {
	w.t.Helper()
	dir, err := os.Getwd()
	w.must(err)
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	dir = filepath.Join(dir, "..", "shared", "golden", "images", name)
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		w.t.Skip("the golden images are not here")
	}
	blobAt := func(d digest.Digest) []byte {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		w.must(err)
		return data
	}
	var i ocispec.Index
	var m ocispec.Manifest
	w.must(json.Unmarshal(index, &i))
	w.must(json.Unmarshal(blobAt(i.Manifests[0].Digest), &m))
	for _, d := range m.Layers {
		if !labels.IsTrace(d.Annotations) {
			w.put(d.MediaType, blobAt(d.Digest))
			w.layers = append(w.layers, d)
		}
	}
}

// remote is a layer, read through the cache as a node does.
type remote struct {
	w    *world
	desc ocispec.Descriptor
}

func (r remote) Size() int64 { return r.desc.Size }

func (r remote) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n := min(int64(len(p)), r.desc.Size-off)
	if n <= 0 {
		return 0, io.EOF
	}
	copy(p, r.w.get("blobs/"+r.desc.Digest.String(), fmt.Sprintf("%d-%d", off, off+n-1)))
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
