package chain_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

const artifactType = labels.TablesArtifact

// repository is a registry with one repository and its referrers.
type repository struct {
	mu        sync.Mutex
	content   map[string][]byte // by digest
	referrers []ocispec.Descriptor
	down      bool // it does not say who refers
	asked     int  // for referrers
}

func (r *repository) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(q.URL.Path, "/referrers/") {
		r.asked++
		if r.down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_ = json.NewEncoder(w).Encode(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: r.referrers,
		})
		return
	}
	content, ok := r.content[path.Base(q.URL.Path)]
	if !ok {
		http.NotFound(w, q)
		return
	}
	if strings.Contains(q.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	}
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(content))
}

func (r *repository) put(mediaType string, content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	r.content[desc.Digest.String()] = content
	return desc
}

func (r *repository) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// attach makes an artifact with the chunk table of a layer.
func (r *repository) attach(t *testing.T, manifest digest.Digest, layer []byte) {
	t.Helper()
	content, root, dgst, err := backstore.BuildChunks(t.Context(), blobtest.Bytes(layer))
	if err != nil {
		t.Fatal(err)
	}
	desc := r.put(artifactType, content)
	desc.Annotations = map[string]string{
		labels.BlobDigest: dgst.String(), labels.BlobSize: strconv.Itoa(len(layer)), labels.ChunksRoot: root.String(),
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Subject: &ocispec.Descriptor{Digest: manifest, Size: 1}, Layers: []ocispec.Descriptor{desc},
	})
	if err != nil {
		t.Fatal(err)
	}
	artifact := r.put(ocispec.MediaTypeImageManifest, text)
	artifact.ArtifactType = artifactType
	r.referrers = append(r.referrers, artifact)
}

// referredLayer starts a repository with a layer without a table and returns
// its descriptor as it is with an image manifest that has referrers.
func referredLayer(t *testing.T) (*repository, string, []byte, ocispec.Descriptor) {
	t.Helper()
	data, err := os.ReadFile("../../../backstore/testdata/vectors/small-chain3/L0.lz4-4k.tar")
	if err != nil {
		t.Fatal(err)
	}
	r := &repository{content: map[string][]byte{}}
	desc := r.put("", bytes.Clone(data))
	manifest := digest.FromString("the image's manifest")
	r.attach(t, manifest, data)
	desc.Annotations = map[string]string{labels.ManifestDigest: manifest.String()}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, strings.TrimPrefix(s.URL, "http://"), data, desc
}

// A layer without a table is verified with the one that a referrer has.
func TestReferrers(t *testing.T) {
	r, host, data, desc := referredLayer(t)
	c := newChain(t, chain.Config{Retry: tries, Verify: chain.VerifyRequired, VerifyReferrers: true})
	b := openBlob(t, c, host+"/app:1", desc)
	if r.asked != 0 || blob.Present(b, 0, 100) {
		t.Error("opening asked the registry")
	}
	if read(t, b, 5000, 2000) != string(data[2000:7000]) || !blob.Present(b, 2000, 5000) {
		t.Error("read something else, or it is not cached")
	}
	r.set(func() { r.content[desc.Digest.String()][100_000] ^= 1 })
	if n, err := b.ReadAt(t.Context(), make([]byte, 100), 99_950); n > 0 || err == nil || !strings.Contains(err.Error(), host) {
		t.Errorf("a wrong byte: %d bytes, %v", n, err)
	}
	r.set(func() { r.content[desc.Digest.String()][100_000] ^= 1 })
	if read(t, b, len(data), 0) != string(data) {
		t.Error("read something else")
	}
	if r.asked != 1 {
		t.Errorf("asked for referrers %d times", r.asked)
	}
}

// Who keeps the answer back, or says something else, does not turn verification
// off; only the answer that there is no table does, where that is allowed.
func TestNoReferrers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *repository, desc *ocispec.Descriptor)
		cfg    chain.Config
		want   string // part of the error; empty: it is read
	}{
		"down":                  {func(r *repository, _ *ocispec.Descriptor) { r.down = true }, chain.Config{}, "503"},
		"none":                  {func(r *repository, _ *ocispec.Descriptor) { r.referrers = nil }, chain.Config{}, ""},
		"none, one required":    {func(r *repository, _ *ocispec.Descriptor) { r.referrers = nil }, chain.Config{Verify: chain.VerifyRequired}, "attach-chunks"},
		"artifact gone":         {func(r *repository, _ *ocispec.Descriptor) { delete(r.content, r.referrers[0].Digest.String()) }, chain.Config{}, "404"},
		"artifact changed":      {func(r *repository, _ *ocispec.Descriptor) { r.content[r.referrers[0].Digest.String()][50] ^= 1 }, chain.Config{}, "artifact"},
		"of another manifest":   {func(_ *repository, d *ocispec.Descriptor) { d.Annotations[labels.ManifestDigest] = nobody.String() }, chain.Config{}, "does not refer"},
		"manifest not known":    {func(_ *repository, d *ocispec.Descriptor) { d.Annotations = nil }, chain.Config{}, ""},
		"not known, required":   {func(_ *repository, d *ocispec.Descriptor) { d.Annotations = nil }, chain.Config{Verify: chain.VerifyRequired}, "no chunk table"},
		"verification is off":   {func(r *repository, _ *ocispec.Descriptor) { r.down = true }, chain.Config{Verify: chain.VerifyOff}, ""},
		"of another layer":      {func(r *repository, _ *ocispec.Descriptor) { r.another() }, chain.Config{}, ""},
		"another, one required": {func(r *repository, _ *ocispec.Descriptor) { r.another() }, chain.Config{Verify: chain.VerifyRequired}, "no chunk table"},
	} {
		t.Run(name, func(t *testing.T) {
			r, host, data, desc := referredLayer(t)
			c.change(r, &desc)
			c.cfg.Retry, c.cfg.VerifyReferrers = tries, true
			b, err := newChain(t, c.cfg).Open(host+"/app:1", desc)
			p := make([]byte, 100)
			if err == nil {
				_, err = b.ReadAt(t.Context(), p, 2000)
			}
			switch {
			case c.want == "" && (err != nil || !bytes.Equal(p, data[2000:2100])):
				t.Errorf("reading: %v, right: %v", err, bytes.Equal(p, data[2000:2100]))
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("reading: %v, want %q", err, c.want)
			}
		})
	}
}

// nobody is the digest of nothing.
var nobody = digest.FromString("nobody")

// another makes the artifact list a table of a layer that nobody asked for.
func (r *repository) another() {
	old := r.referrers[0]
	var m ocispec.Manifest
	if err := json.Unmarshal(r.content[old.Digest.String()], &m); err != nil {
		panic(err)
	}
	m.Layers[0].Annotations[labels.BlobDigest] = nobody.String()
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	artifact := r.put(old.MediaType, text)
	artifact.ArtifactType = old.ArtifactType
	r.referrers = []ocispec.Descriptor{artifact}
}

// When a registry comes back, what could not be asked is asked again.
func TestReferrersLater(t *testing.T) {
	r, host, data, desc := referredLayer(t)
	r.set(func() { r.down = true })
	c := newChain(t, chain.Config{Retry: tries, VerifyReferrers: true})
	b := openBlob(t, c, host+"/app:1", desc)
	if _, err := b.ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Fatal("read without an answer")
	}
	r.set(func() { r.down = false })
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			p := make([]byte, 1000)
			if _, err := b.ReadAt(t.Context(), p, int64(i)*1000); err != nil || !bytes.Equal(p, data[i*1000:][:1000]) {
				t.Errorf("reading: %v", err)
			}
		})
	}
	readers.Wait()
}

func FuzzArtifact(f *testing.F) {
	manifest := digest.FromString("manifest")
	good, err := json.Marshal(ocispec.Manifest{
		Subject: &ocispec.Descriptor{Digest: manifest},
		Layers: []ocispec.Descriptor{{MediaType: artifactType, Digest: manifest, Size: 100, Annotations: map[string]string{
			labels.BlobDigest: manifest.String(), labels.BlobSize: "5", labels.ChunksRoot: manifest.String(),
		}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		roots, err := chain.ParseArtifact(text, manifest)
		for layer, root := range roots {
			if layer.Validate() != nil || root.Validate() != nil {
				t.Errorf("layer %q, root %q, %v", layer, root, err)
			}
		}
	})
}
