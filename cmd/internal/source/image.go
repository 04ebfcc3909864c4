package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

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

// openImage opens the image that desc, a manifest or an index, describes.
func openImage(ctx context.Context, s store, desc ocispec.Descriptor, match platforms.MatchComparer) (*Image, error) {
	metadata := int64(0)
	doc, err := chooseManifest(ctx, desc, match, func(ctx context.Context, desc ocispec.Descriptor) (Document, error) {
		metadata += desc.Size
		return readManifest(ctx, s, desc)
	})
	if err != nil {
		return nil, err
	}
	img := &Image{Manifest: doc.Desc, MetadataBytes: metadata}
	return img, img.stack(s, doc.Manifest.Layers)
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
			err = usable(l, desc)
		}
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", n, desc.Digest, err)
		}
		b, err := s.open(desc)
		if err != nil {
			return fmt.Errorf("opening layer %d (%s): %w", n, desc.Digest, err)
		}
		if i.Trace != nil { // of what lies below
			i.Stale = append(i.Stale, i.Trace)
			i.Trace = nil
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

// usable reports why a layer cannot be part of a stack.
func usable(l labels.Labels, desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	switch {
	case desc.Size <= 0 || desc.Size > labels.MaxBlobSize:
		return fmt.Errorf("size of %d bytes is outside 1 to %d", desc.Size, int64(labels.MaxBlobSize))
	case l.Turbo:
		return errors.New("is a TurboOCI layer, which is not supported: convert the image to native overlaybd layers")
	case l.Blob == "" && !l.Trace:
		return ErrNotOverlaybd
	}
	return nil
}
