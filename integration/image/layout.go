package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layout is an OCI image layout folder with one image in it.
type Layout struct {
	// Dir is the folder.
	Dir string
}

// Layer is a layer blob of an image.
type Layer struct {
	Descriptor ocispec.Descriptor
	// DiffID is the digest of the uncompressed layer.
	DiffID digest.Digest
}

// Pusher stores blobs and manifests in a registry; *registry.Client is one.
type Pusher interface {
	Push(ctx context.Context, ref string, desc ocispec.Descriptor, r io.Reader) error
}

// Blob adds the blob that the function writes to a new file.
func (l Layout) Blob(mediaType string, produce func(*os.File) error) (ocispec.Descriptor, error) {
	dir := filepath.Join(l.Dir, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ocispec.Descriptor{}, err
	}
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := produce(f); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing a blob: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ocispec.Descriptor{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.NewDigest(digest.SHA256, sum)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}
	return desc, os.Rename(f.Name(), filepath.Join(dir, d.Encoded()))
}

// json writes v as a blob.
func (l Layout) json(mediaType string, v any) (ocispec.Descriptor, error) {
	return l.Blob(mediaType, func(f *os.File) error { return json.NewEncoder(f).Encode(v) })
}

// Finish writes config, manifest and index for the layers, bottom first, and
// the command that the image runs.
func (l Layout) Finish(layers []Layer, args []string) (ocispec.Descriptor, error) {
	created := epoch.UTC()
	config := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config: ocispec.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: args,
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.DiffID)
		manifest.Layers = append(manifest.Layers, layer.Descriptor)
	}
	var err error
	if manifest.Config, err = l.json(ocispec.MediaTypeImageConfig, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := l.json(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return desc, err
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{desc},
	})
	return desc, errors.Join(err,
		os.WriteFile(filepath.Join(l.Dir, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(l.Dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// Manifest returns the descriptor and the contents of the image's manifest.
func (l Layout) Manifest() (ocispec.Descriptor, ocispec.Manifest, error) {
	var index ocispec.Index
	var m ocispec.Manifest
	b, err := os.ReadFile(filepath.Join(l.Dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err == nil && len(index.Manifests) != 1 {
		err = fmt.Errorf("%d manifests instead of one", len(index.Manifests))
	}
	if err == nil {
		b, err = os.ReadFile(l.blobPath(index.Manifests[0].Digest))
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return ocispec.Descriptor{}, m, fmt.Errorf("reading image layout %s: %w", l.Dir, err)
	}
	return index.Manifests[0], m, nil
}

// blobPath returns the file of a blob.
func (l Layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.Dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// BlobPath returns the file of the blob desc describes.
func (l Layout) BlobPath(desc ocispec.Descriptor) string { return l.blobPath(desc.Digest) }

// Size returns the bytes of all layers.
func (l Layout) Size() (int64, error) {
	_, m, err := l.Manifest()
	var n int64
	for _, d := range m.Layers {
		n += d.Size
	}
	return n, err
}

// Push stores the image under ref, manifest last.
func (l Layout) Push(ctx context.Context, p Pusher, ref string) error {
	desc, m, err := l.Manifest()
	if err != nil {
		return err
	}
	desc.Annotations = nil
	for _, d := range append(append(m.Layers, m.Config), desc) {
		if err := l.push(ctx, p, ref, d); err != nil {
			return fmt.Errorf("pushing %s to %s: %w", d.Digest, ref, err)
		}
	}
	return nil
}

func (l Layout) push(ctx context.Context, p Pusher, ref string, desc ocispec.Descriptor) error {
	f, err := os.Open(l.BlobPath(desc))
	if err != nil {
		return err
	}
	defer f.Close()
	return p.Push(ctx, ref, desc, f)
}
