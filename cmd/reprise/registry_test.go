package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/snapshot/labels"
)

// fakeRegistry serves blobs and the manifests with the given tags as app, and
// counts the bytes of bodies.
type fakeRegistry struct {
	*httptest.Server
	blobs  map[digest.Digest][]byte
	types  map[digest.Digest]string
	tags   map[string]digest.Digest
	served atomic.Int64
	wholes atomic.Int64 // layer blobs served without a range
}

func newRegistry(t *testing.T) *fakeRegistry {
	r := &fakeRegistry{blobs: map[digest.Digest][]byte{}, types: map[digest.Digest]string{}, tags: map[string]digest.Digest{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *fakeRegistry) ref(tag string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/app:" + tag
}

func (r *fakeRegistry) add(mediaType string, b []byte) ocispec.Descriptor {
	d := digest.FromBytes(b)
	r.blobs[d], r.types[d] = b, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (r *fakeRegistry) document(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return r.add(mediaType, b)
}

// image stores an image of overlaybd layers and returns its manifest.
func (r *fakeRegistry) image(t *testing.T, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: r.document(t, ocispec.MediaTypeImageConfig, ocispec.Image{}),
	}
	for _, b := range layers {
		d := r.add(ocispec.MediaTypeImageLayer, b)
		d.Annotations = map[string]string{
			labels.BlobDigest: d.Digest.String(), labels.BlobSize: fmt.Sprint(d.Size), labels.FSType: "ext4",
		}
		m.Layers = append(m.Layers, d)
	}
	return r.document(t, ocispec.MediaTypeImageManifest, m)
}

// ServeHTTP implements the pull half of the distribution protocol.
func (r *fakeRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	d, ok := r.tags[name]
	if !ok {
		d = digest.Digest(name)
	}
	b, ok := r.blobs[d]
	if !ok || strings.Contains(req.URL.Path, "/referrers/") {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", r.types[d])
	w.Header().Set("Docker-Content-Digest", d.String())
	if r.types[d] == ocispec.MediaTypeImageLayer && req.Header.Get("Range") == "" {
		r.wholes.Add(1)
	}
	http.ServeContent(&counted{w, &r.served}, req, "", time.Time{}, bytes.NewReader(b))
}

// counted counts the bytes of a body.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// layers returns the blobs of the small chain, bottom first.
func layers(t *testing.T) [][]byte {
	t.Helper()
	var all [][]byte
	for _, name := range chain3("lz4-4k.registry.tar") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func TestRegistry(t *testing.T) {
	r := newRegistry(t)
	r.tags["1"] = r.image(t, layers(t)...).Digest
	hosts := "--hosts-dir=" + t.TempDir()

	got := reprise(t, "inspect", hosts, "--json", r.ref("1"))
	var doc struct {
		Kind   string
		Device struct{ Segments int }
		Stored int64 `json:"stored_bytes"`
		Cost   struct{ Bytes, Requests int64 }
	}
	if err := json.Unmarshal([]byte(got.out), &doc); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	if doc.Kind != "registry" || doc.Device.Segments != 27 {
		t.Errorf("%+v", doc)
	}
	// The point of the format: what describes an image is a small part of
	// it, and the report says truly how much was fetched.
	if doc.Cost.Bytes != r.served.Load() || doc.Cost.Bytes > doc.Stored/4 || r.wholes.Load() != 0 {
		t.Errorf("cost %+v of %d stored, served %d, %d whole blobs", doc.Cost, doc.Stored, r.served.Load(), r.wholes.Load())
	}

	path := filepath.Join(t.TempDir(), "disk")
	if got := reprise(t, "dump", hosts, r.ref("1"), "-o", path); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, expected(t)) {
		t.Errorf("device differs, %v", err)
	}

	r.served.Store(0)
	if got := reprise(t, "check", hosts, r.ref("1")); got.code != exitOK || !strings.Contains(got.out, "0 problems, 0 warnings") {
		t.Errorf("%+v", got)
	}
	if n := r.served.Load(); n > doc.Stored+doc.Cost.Bytes+4096 {
		t.Errorf("check fetched %d bytes of an image of %d", n, doc.Stored)
	}
	if got := reprise(t, "inspect", hosts, r.ref("none")); got.code != exitFailed || !strings.Contains(got.err, "there is no file") {
		t.Errorf("%+v", got)
	}
}

func TestRegistryDamage(t *testing.T) {
	r := newRegistry(t)
	all := layers(t)
	m := r.image(t, all...)
	r.tags["1"] = m.Digest
	intact := digest.FromBytes(all[1])
	damaged := bytes.Clone(all[1])
	damaged[20000] ^= 1
	r.blobs[intact] = damaged
	got := reprise(t, "check", "--hosts-dir="+t.TempDir(), r.ref("1"))
	if got.code != exitFailed || !strings.Contains(got.out, "block 10, 878 bytes at offset 19396: checksum") ||
		!strings.Contains(got.out, "digest: the bytes hash to "+digest.FromBytes(damaged).String()) ||
		!strings.Contains(got.out, "2 problems") {
		t.Errorf("%+v", got)
	}
}

func TestRegistryPlatform(t *testing.T) {
	r := newRegistry(t)
	all := layers(t)
	amd, arm := r.image(t, all...), r.image(t, all[:1]...)
	amd.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	r.tags["multi"] = r.document(t, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{amd, arm},
	}).Digest
	for arch, want := range map[string]digest.Digest{"amd64": amd.Digest, "arm64": arm.Digest} {
		got := reprise(t, "inspect", "--hosts-dir="+t.TempDir(), "--platform", "linux/"+arch, r.ref("multi"))
		if got.code != exitOK || !strings.Contains(got.out, want.String()) {
			t.Errorf("%s: %+v, want manifest %s", arch, got, want)
		}
	}
	got := reprise(t, "inspect", "--hosts-dir="+t.TempDir(), "--platform", "linux/s390x", r.ref("multi"))
	if got.code != exitFailed || !strings.Contains(got.err, "choose one with --platform") {
		t.Errorf("%+v", got)
	}
}

func TestRegistryImageThatIsNotOverlaybd(t *testing.T) {
	r := newRegistry(t)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: r.document(t, ocispec.MediaTypeImageConfig, ocispec.Image{}),
		Layers: []ocispec.Descriptor{r.add(ocispec.MediaTypeImageLayerGzip, []byte("\x1f\x8b..."))},
	}
	r.tags["plain"] = r.document(t, ocispec.MediaTypeImageManifest, m).Digest
	got := reprise(t, "inspect", "--hosts-dir="+t.TempDir(), r.ref("plain"))
	if got.code != exitFailed || !strings.Contains(got.err, "convert it first") {
		t.Errorf("%+v", got)
	}
}
