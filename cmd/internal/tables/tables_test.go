package tables_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/tables"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// layout is an OCI layout with overlaybd images of the golden vectors.
type layout struct {
	t   *testing.T
	dir string
}

func (l layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	l.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	path := filepath.Join(l.dir, "blobs/sha256", d.Digest.Encoded())
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		l.t.Fatal(err)
	}
	return d
}

func (l layout) json(mediaType string, v any) ocispec.Descriptor {
	l.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, text)
}

// layer adds a golden layer.
func (l layout) layer(name string, annotations map[string]string) ocispec.Descriptor {
	l.t.Helper()
	data, err := os.ReadFile("../../../backstore/testdata/vectors/small-chain3/" + name)
	if err != nil {
		l.t.Fatal(err)
	}
	d := l.blob(ocispec.MediaTypeImageLayer, data)
	d.Annotations = map[string]string{labels.BlobDigest: d.Digest.String(), labels.BlobSize: fmt.Sprint(d.Size)}
	for k, v := range annotations {
		d.Annotations[k] = v
	}
	return d
}

func (l layout) image(layers ...ocispec.Descriptor) ocispec.Descriptor {
	return l.imageFor("{}", layers...)
}

// imageFor makes an image with a config.
func (l layout) imageFor(config string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	return l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.blob(ocispec.MediaTypeImageConfig, []byte(config)), Layers: layers,
	})
}

func (l layout) index(children ...ocispec.Descriptor) ocispec.Descriptor {
	return l.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
	})
}

// tag makes the layout's one image.
func (l layout) tag(d ocispec.Descriptor) {
	l.t.Helper()
	d.Annotations = map[string]string{ocispec.AnnotationRefName: "1"}
	text, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		l.t.Fatal(err)
	}
	for name, data := range map[string]string{"index.json": string(text), "oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(data), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l layout) attach(platform string) (*tables.Report, error) {
	l.t.Helper()
	image := l.open("")
	store, err := destination.NewLayout(l.dir, "")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { store.Close() })
	return tables.Attach(l.t.Context(), tables.Config{Image: image, Store: store, Platform: platform})
}

func (l layout) open(tag string) *source.Content {
	l.t.Helper()
	c, err := source.OpenContent(l.t.Context(), l.dir+tag, source.Config{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// The tables verify what they were made for.
func TestAttach(t *testing.T) {
	l := layout{t, t.TempDir()}
	with := labels.WithChunks(chunks.Ref{Root: digest.FromString("root"), Offset: 2048, Size: 1000})
	image := l.image(l.layer("L0.lz4-4k.tar", nil), l.layer("L1.lz4-4k.tar", with), l.layer("L2.lz4-4k.tar", nil))
	l.tag(image)
	for range 2 { // the second time it is there
		r, err := l.attach("")
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Manifests) != 1 || len(r.Manifests[0].Tables) != 2 || r.Manifests[0].Digest != image.Digest {
			t.Fatalf("%+v", r)
		}
		c := l.open("@" + r.Manifests[0].Artifact.String())
		text, err := c.Read(t.Context(), c.Root)
		var m ocispec.Manifest
		if err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err != nil || m.ArtifactType != labels.TablesArtifact || m.Subject.Digest != image.Digest || m.Config.MediaType != ocispec.MediaTypeEmptyJSON {
			t.Fatalf("%s, %v", text, err)
		}
		for i, d := range m.Layers {
			verifies(t, c, d, r.Manifests[0].Tables[i])
		}
	}
	if c := l.open(""); c.Root.Digest != image.Digest {
		t.Errorf("the image became %s", c.Root.Digest)
	}
}

// verifies checks that a table makes right bytes readable and wrong ones not.
func verifies(t *testing.T, c *source.Content, d ocispec.Descriptor, said tables.Table) {
	t.Helper()
	table, err := c.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	layer := ocispec.Descriptor{Digest: digest.Digest(d.Annotations[labels.BlobDigest]), Size: said.LayerSize}
	b, err := c.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	ref := chunks.Ref{Root: digest.Digest(d.Annotations[labels.ChunksRoot]), Size: d.Size}
	if layer.Digest != said.Layer || ref.Root != said.Root || d.MediaType != labels.TablesArtifact {
		t.Errorf("%+v, report %+v", d, said)
	}
	p := make([]byte, b.Size())
	if _, err := chunks.Verify(b, ref, table, nil).ReadAt(t.Context(), p, 0); err != nil {
		t.Error(err)
	}
	if _, err := chunks.Verify(flipped{b}, ref, table, nil).ReadAt(t.Context(), p, 0); err == nil {
		t.Error("a wrong byte passes")
	}
}

type flipped struct{ blob.Blob }

func (f flipped) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.Blob.ReadAt(ctx, p, off)
	if off <= 700 && off+int64(n) > 700 {
		p[700-off] ^= 1
	}
	return n, err
}

func TestAttachToIndex(t *testing.T) {
	l := layout{t, t.TempDir()}
	amd := l.image(l.layer("L0.lz4-4k.tar", nil))
	amd.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm := l.image(l.layer("L0.zstd-64k.tar", nil), l.layer("L1.lz4-4k.tar", nil))
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	plain := l.layer("L2.lz4-4k.tar", nil)
	plain.Annotations = nil
	l.tag(l.index(amd, arm, l.image(plain)))
	r, err := l.attach("linux/arm64")
	if err != nil || len(r.Manifests) != 1 || r.Manifests[0].Digest != arm.Digest || len(r.Manifests[0].Tables) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = l.attach(""); err != nil || len(r.Manifests) != 2 || r.Manifests[0].Platform != "linux/amd64" {
		t.Errorf("%+v, %v", r, err)
	}
	l.tag(l.image(plain))
	if _, err = l.attach(""); !errors.Is(err, source.ErrNotOverlaybd) {
		t.Errorf("an ordinary image: %v", err)
	}
	deep := amd
	for range 7 {
		deep = l.index(deep)
	}
	l.tag(deep)
	if _, err = l.attach(""); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("indexes without end: %v", err)
	}
}

// An image without an index is for one platform as well.
func TestAttachPlatform(t *testing.T) {
	l := layout{t, t.TempDir()}
	image := l.imageFor(`{"os":"linux","architecture":"amd64"}`, l.layer("L0.lz4-4k.tar", nil))
	entry := image
	entry.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	for name, d := range map[string]ocispec.Descriptor{"config": image, "descriptor": entry} {
		l.tag(d)
		if _, err := l.attach("linux/arm64"); err == nil || !strings.Contains(err.Error(), "is for linux/amd64, not for linux/arm64") {
			t.Errorf("by its %s: %v", name, err)
		}
		if c := l.open(""); c.Root.ArtifactType != "" {
			t.Errorf("by its %s: something was attached", name)
		}
		if r, err := l.attach("linux/amd64"); err != nil || len(r.Manifests) != 1 {
			t.Errorf("by its %s: %+v, %v", name, r, err)
		}
	}
}

// A table is made for the bytes that the digest is of, not for others.
func TestAttachToDamaged(t *testing.T) {
	l := layout{t, t.TempDir()}
	d := l.layer("L0.lz4-4k.tar", nil)
	l.tag(l.image(d))
	path := filepath.Join(l.dir, "blobs/sha256", d.Digest.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[3000] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.attach(""); err == nil || !strings.Contains(err.Error(), "its bytes have digest "+digest.FromBytes(data).String()) {
		t.Errorf("%v", err)
	}
	if c := l.open(""); c.Root.ArtifactType != "" {
		t.Error("something was attached")
	}
	d.Annotations[labels.ChunksRoot] = "sha256:1"
	l.tag(l.image(d))
	if _, err := l.attach(""); err == nil || !strings.Contains(err.Error(), labels.ChunksRoot) {
		t.Errorf("a wrong annotation: %v", err)
	}
}
