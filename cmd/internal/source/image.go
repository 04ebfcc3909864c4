package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// maxDocument is the largest index or manifest in bytes; registries refuse
// larger ones.
const maxDocument = 4 << 20

// ErrNotOverlaybd is in the chain of errors of images whose layers are not in
// overlaybd format.
var ErrNotOverlaybd = errors.New("image has no overlaybd layers: convert it first")

// store holds the documents and blobs of an image.
type store interface {
	// read returns a document whose digest it has verified.
	read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// open returns a blob without reading it.
	open(desc ocispec.Descriptor) (blob.Blob, error)
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

// openImage opens the image that desc, a manifest or an index, describes.
func openImage(ctx context.Context, s store, desc ocispec.Descriptor, match platforms.MatchComparer) (*Image, error) {
	metadata := desc.Size
	doc, err := s.read(ctx, desc)
	if err != nil {
		return nil, err
	}
	if images.IsIndexType(mediaType(desc, doc)) {
		var index ocispec.Index
		if err := json.Unmarshal(doc, &index); err != nil {
			return nil, fmt.Errorf("parsing index %s: %w", desc.Digest, err)
		}
		if desc, err = choose(index.Manifests, match); err != nil {
			return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		metadata += desc.Size
		if doc, err = s.read(ctx, desc); err != nil {
			return nil, err
		}
	}
	if t := mediaType(desc, doc); !images.IsManifestType(t) {
		return nil, fmt.Errorf("%s is not an image manifest but %q", desc.Digest, t)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, fmt.Errorf("parsing manifest %s: %w", desc.Digest, err)
	}
	img := &Image{Manifest: desc, MetadataBytes: metadata}
	return img, img.stack(s, m.Layers)
}

// mediaType returns what doc says it is, or else what desc says.
func mediaType(desc ocispec.Descriptor, doc []byte) string {
	var d struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(doc, &d); {
	case err == nil && d.MediaType != "":
		return d.MediaType
	case err == nil && d.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case desc.MediaType != "":
		return desc.MediaType
	}
	return ocispec.MediaTypeImageManifest
}

// choose returns the best of manifests for a platform.
func choose(manifests []ocispec.Descriptor, match platforms.MatchComparer) (ocispec.Descriptor, error) {
	var fit []ocispec.Descriptor
	var have []string
	for _, d := range manifests {
		if d.Platform == nil || match.Match(*d.Platform) {
			fit = append(fit, d)
		}
		if d.Platform != nil {
			have = append(have, platforms.Format(*d.Platform))
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("no manifest for this platform; there is %s: choose one with --platform",
			strings.Join(have, ", "))
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit[0], nil
}

// stack opens layers, bottom first, as the layers of i.
func (i *Image) stack(s store, layers []ocispec.Descriptor) error {
	for n, desc := range layers {
		l, err := labels.Parse(desc.Annotations)
		if err == nil {
			err = usable(l, desc, i.Trace)
		}
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", n, desc.Digest, err)
		}
		b, err := s.open(desc)
		if err != nil {
			return fmt.Errorf("opening layer %d (%s): %w", n, desc.Digest, err)
		}
		if l.Trace {
			i.Trace = b
			continue
		}
		i.Layers = append(i.Layers, b)
		if l.FSType != "" {
			i.FSType = l.FSType
		}
	}
	if len(i.Layers) == 0 {
		return ErrNotOverlaybd
	}
	return nil
}

// usable reports why a layer cannot be part of a stack; trace is the trace
// layer found below it, if any.
func usable(l labels.Labels, desc ocispec.Descriptor, trace blob.Blob) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	switch {
	case desc.Size <= 0 || desc.Size > labels.MaxBlobSize:
		return fmt.Errorf("size of %d bytes is outside 1 to %d", desc.Size, int64(labels.MaxBlobSize))
	case trace != nil:
		return errors.New("lies above a trace layer, which must be the topmost: rebuild the image without the old trace layer")
	case l.Turbo:
		return errors.New("is a TurboOCI layer, which is not supported: convert the image to native overlaybd layers")
	case l.Blob == "" && !l.Trace:
		return ErrNotOverlaybd
	}
	return nil
}
