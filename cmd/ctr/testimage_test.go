package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageServer serves one image, named app:1, and counts what is fetched of it.
type imageServer struct {
	*httptest.Server
	blobs    map[digest.Digest][]byte
	config   ocispec.Descriptor
	manifest ocispec.Descriptor

	mu   sync.Mutex
	gets map[digest.Digest]int
}

// serve starts a registry with an image of the given layers, bottom first.
func serve(t *testing.T, layers ...ocispec.Descriptor) *imageServer {
	t.Helper()
	r := &imageServer{blobs: map[digest.Digest][]byte{}, gets: map[digest.Digest]int{}}
	config := ocispec.Image{
		Platform: platforms.Normalize(platforms.DefaultSpec()),
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	for _, l := range layers {
		r.blobs[l.Digest] = l.Data
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	r.config = r.add(t, ocispec.MediaTypeImageConfig, config)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    r.config,
	}
	for _, l := range layers {
		l.Data = nil
		m.Layers = append(m.Layers, l)
	}
	r.manifest = r.add(t, ocispec.MediaTypeImageManifest, m)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *imageServer) add(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(b)
	r.blobs[d] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// ref returns the reference of the image.
func (r *imageServer) ref() string { return strings.TrimPrefix(r.URL, "http://") + "/app:1" }

// fetched returns the digests that were asked for with GET.
func (r *imageServer) fetched() map[digest.Digest]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.gets)
}

// ServeHTTP implements the pull half of the distribution protocol.
func (r *imageServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	d := digest.Digest(name)
	if name == "1" {
		d = r.manifest.Digest
	}
	b, ok := r.blobs[d]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	if d == r.manifest.Digest {
		w.Header().Set("Content-Type", r.manifest.MediaType)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if req.Method == http.MethodGet {
		r.mu.Lock()
		r.gets[d]++
		r.mu.Unlock()
		w.Write(b)
	}
}

// tarLayer returns a layer whose tar holds one file.
func tarLayer(t *testing.T, name, content string, annotations map[string]string) ocispec.Descriptor {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	tw.Write([]byte(content))
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(buf.Bytes())
	for k, v := range annotations {
		annotations[k] = strings.ReplaceAll(v, "SELF", d.String())
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(buf.Len()),
		Annotations: annotations, Data: buf.Bytes(),
	}
}
