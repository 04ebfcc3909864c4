package source

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument is the largest index or manifest in bytes; registries refuse
// larger ones.
const maxDocument = 4 << 20

// MaxDepth bounds indexes in indexes.
const MaxDepth = 4

// ErrDepth is the error of images with more indexes in indexes than MaxDepth.
var ErrDepth = fmt.Errorf("indexes in indexes more than %d deep", MaxDepth)

// Document is a manifest or an index.
type Document struct {
	// Desc describes it, with the media type that it says it has.
	Desc ocispec.Descriptor
	Text []byte
	// Index says that it is an index, which has Children and no Manifest.
	Index    bool
	Children []ocispec.Descriptor
	Manifest ocispec.Manifest
	// Annotations are those of either.
	Annotations map[string]string
}

// Document returns a manifest or an index, whose digest was verified.
func (c *Content) Document(ctx context.Context, desc ocispec.Descriptor) (Document, error) {
	return readManifest(ctx, c.store, desc)
}

func readManifest(ctx context.Context, s store, desc ocispec.Descriptor) (Document, error) {
	text, err := s.read(ctx, desc)
	if err != nil {
		return Document{}, err
	}
	return ParseDocument(desc, text)
}

// ParseDocument parses a manifest or an index. The digests in it are valid, and
// no size is negative.
func ParseDocument(desc ocispec.Descriptor, text []byte) (Document, error) {
	d := Document{Desc: desc, Text: text}
	d.Desc.MediaType = mediaType(desc, text)
	switch {
	case images.IsIndexType(d.Desc.MediaType):
		var index ocispec.Index
		if err := json.Unmarshal(text, &index); err != nil {
			return d, fmt.Errorf("parsing index %s: %w", desc.Digest, err)
		}
		d.Index, d.Children, d.Annotations = true, index.Manifests, index.Annotations
	case images.IsManifestType(d.Desc.MediaType):
		if err := json.Unmarshal(text, &d.Manifest); err != nil {
			return d, fmt.Errorf("parsing manifest %s: %w", desc.Digest, err)
		}
		d.Annotations = d.Manifest.Annotations
	default:
		return d, fmt.Errorf("%s is no manifest and no index but %q, which is not supported", desc.Digest, d.Desc.MediaType)
	}
	for _, e := range append(d.Blobs(), d.Children...) {
		if err := e.Digest.Validate(); err != nil {
			return d, fmt.Errorf("%s: digest %q: %w", desc.Digest, e.Digest, err)
		}
		if e.Size < 0 {
			return d, fmt.Errorf("%s: size %d of %s is negative", desc.Digest, e.Size, e.Digest)
		}
	}
	return d, nil
}

// Blobs returns config and layers of a manifest, in this order. An index has
// none.
func (d Document) Blobs() []ocispec.Descriptor {
	if d.Index {
		return nil
	}
	return append([]ocispec.Descriptor{d.Manifest.Config}, d.Manifest.Layers...)
}

// mediaType returns what a document says it is, or else what its descriptor
// says.
func mediaType(desc ocispec.Descriptor, text []byte) string {
	var d struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(text, &d); {
	case err == nil && d.MediaType != "":
		return d.MediaType
	case err == nil && d.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case desc.MediaType != "":
		return desc.MediaType
	}
	return ocispec.MediaTypeImageManifest
}

// readDocument reads desc from r, which verifies the digest at its end.
func readDocument(r io.Reader, desc ocispec.Descriptor) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("document %s is larger than %d bytes", desc.Digest, maxDocument)
	}
	return b, nil
}
