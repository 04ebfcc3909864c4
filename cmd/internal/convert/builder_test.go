package convert_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive returns a layer with files of the given sizes, whose content is
// random but for its second half.
func archive(files map[string]int) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, name := range sorted(files) {
		size := files[name]
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(size), ModTime: time.Unix(1e9, 0), Uid: 7}
		if size < 0 {
			h.Typeflag, h.Size, h.Mode = tar.TypeDir, 0, 0o755
		}
		must(t.WriteHeader(h))
		if size > 0 {
			data := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(size), byte(len(name))}).Read(data[:size/2])
			_, err := t.Write(data)
			must(err)
		}
	}
	must(t.Close())
	return b.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	must(z.Close())
	return out.Bytes()
}

func zstded(b []byte) []byte {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	must(err)
	z.Write(b)
	must(z.Close())
	return out.Bytes()
}

// builder writes an OCI layout.
type builder struct {
	t      *testing.T
	dir    string
	docker bool // docker's media types
}

func newBuilder(t *testing.T) *builder {
	b := &builder{t: t, dir: t.TempDir()}
	b.file(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	must(os.MkdirAll(filepath.Join(b.dir, "blobs/sha256"), 0o755))
	return b
}

func (b *builder) file(name string, text []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), text, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	b.file("blobs/sha256/"+d.Encoded(), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b *builder) json(mediaType string, v any) ocispec.Descriptor {
	text, err := json.Marshal(v)
	must(err)
	return b.blob(mediaType, text)
}

// layer is a layer of an image to be made.
type layer struct {
	tar  []byte
	blob []byte // compressed; nil: tar
	id   digest.Digest
	// annotations of the descriptor
	annotations map[string]string
}

// plainLayer, gzipLayer and zstdLayer are a layer in each form.
func plainLayer(tar []byte) layer { return layer{tar: tar} }
func gzipLayer(tar []byte) layer  { return layer{tar: tar, blob: gzipped(tar)} }
func zstdLayer(tar []byte) layer  { return layer{tar: tar, blob: zstded(tar)} }

func (b *builder) mediaTypes() (manifest, config, layer string) {
	if b.docker {
		return images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2LayerGzip
	}
	return ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
}

// image makes an image for a platform.
func (b *builder) image(platform ocispec.Platform, layers ...layer) ocispec.Descriptor {
	manifestType, configType, layerType := b.mediaTypes()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Annotations: map[string]string{"org.example.title": "<test & more>"},
	}
	var ids []digest.Digest
	for _, l := range layers {
		if l.blob == nil {
			l.blob = l.tar
		}
		if l.id == "" {
			l.id = digest.FromBytes(l.tar)
		}
		ids = append(ids, l.id)
		d := b.blob(layerType, l.blob)
		d.Annotations = l.annotations
		m.Layers = append(m.Layers, d)
	}
	text, err := json.Marshal(ids)
	must(err)
	m.Config = b.blob(configType, fmt.Appendf(nil, `{"os":%q,"architecture":%q,"created":"2024-01-02T03:04:05.678Z","config":{"Cmd":["/bin/sh <&>"]},`+
		`"rootfs":{"diff_ids":%s,"type":"layers"},"history":[{"created_by":"one"},{"created_by":"two","empty_layer":true}],"x-number":12345678901234567890}`,
		platform.OS, platform.Architecture, text))
	d := b.json(manifestType, m)
	d.Platform = &platform
	return d
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// tag names images in the index of the layout.
func (b *builder) tag(tags map[string]ocispec.Descriptor) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for _, tag := range sorted(tags) {
		d := tags[tag]
		d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, d)
	}
	text, err := json.Marshal(index)
	must(err)
	b.file(ocispec.ImageIndexFile, text)
}

// single makes a layout with one image and returns its argument.
func single(t *testing.T, layers ...layer) string {
	b := newBuilder(t)
	b.tag(map[string]ocispec.Descriptor{"1": b.image(amd64, layers...)})
	return b.dir + ":1"
}

// three are layers of each form.
func three() []layer {
	return []layer{
		gzipLayer(archive(map[string]int{"etc": -1, "etc/passwd": 1000, "usr": -1, "usr/lib": 300_000})),
		zstdLayer(archive(map[string]int{"usr/bin": 70_001, "usr/empty": 0})),
		plainLayer(archive(map[string]int{"etc/passwd": 1200, "var": -1})),
	}
}
