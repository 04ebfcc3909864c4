package source_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// layout writes OCI image layouts for tests.
type layout struct {
	t     *testing.T
	dir   string
	index ocispec.Index
}

func newLayout(t *testing.T) *layout {
	l := &layout{t: t, dir: t.TempDir()}
	l.index.SchemaVersion = 2
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layout) write(name string, data []byte) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// blob stores data and returns its descriptor.
func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	l.t.Helper()
	d := digest.FromBytes(data)
	l.write("blobs/sha256/"+d.Encoded(), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) document(mediaType string, v any) ocispec.Descriptor {
	l.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, b)
}

// layer stores an overlaybd layer; more is pairs of further annotations.
func (l *layout) layer(data string, more ...string) ocispec.Descriptor {
	d := l.blob(ocispec.MediaTypeImageLayer, []byte(data))
	d.Annotations = map[string]string{labels.BlobDigest: d.Digest.String()}
	for i := 0; i < len(more); i += 2 {
		d.Annotations[more[i]] = more[i+1]
	}
	return d
}

// image stores a manifest of layers; tag names it in the index unless empty.
func (l *layout) image(tag string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	config := l.document(ocispec.MediaTypeImageConfig, ocispec.Image{})
	d := l.document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
	if tag != "" {
		entry := d
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		l.index.Manifests = append(l.index.Manifests, entry)
	}
	return d
}

// path finishes the layout and returns its directory.
func (l *layout) path() string {
	l.t.Helper()
	b, err := json.Marshal(l.index)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write("index.json", b)
	return l.dir
}

// archive returns the finished layout as a tar file.
func (l *layout) archive() string {
	l.t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.AddFS(os.DirFS(l.path())); err != nil {
		l.t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		l.t.Fatal(err)
	}
	path := filepath.Join(l.t.TempDir(), "image.tar")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// layoutRegistry serves the blobs of a layout as a registry with the tags of it.
type layoutRegistry struct{ *layout }

func (r layoutRegistry) Resolve(_ context.Context, ref string) (ocispec.Descriptor, error) {
	for _, d := range r.index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == ref {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, fs.ErrNotExist
}

func (r layoutRegistry) Fetch(_ context.Context, _ string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return os.Open(filepath.Join(r.dir, "blobs/sha256", desc.Digest.Encoded()))
}

func (r layoutRegistry) Open(_ string, desc ocispec.Descriptor) (blob.Blob, error) {
	return blob.OpenFile(filepath.Join(r.dir, "blobs/sha256", desc.Digest.Encoded()))
}

// open opens arg and closes it at the end of the test.
func open(t *testing.T, arg string, cfg source.Config) (*source.Image, error) {
	t.Helper()
	img, err := source.Open(t.Context(), arg, cfg)
	if err == nil {
		t.Cleanup(func() {
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return img, err
}

// contents returns what the layers of img hold, bottom first.
func contents(t *testing.T, img *source.Image) []string {
	t.Helper()
	var all []string
	for _, l := range img.Layers {
		b := make([]byte, l.Size())
		if _, err := l.ReadAt(t.Context(), b, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return all
}
