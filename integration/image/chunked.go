package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// Chunked returns the image with a chunk table in each layer, made in the
// folder dir.
func (l Layout) Chunked(ctx context.Context, dir string, args []string) (c Layout, err error) {
	_, m, err := l.Manifest()
	if err != nil {
		return c, err
	}
	c.Dir = dir
	var layers []Layer
	for _, d := range m.Layers {
		layer, err := c.chunked(ctx, l.BlobPath(d), d)
		if err != nil {
			return c, fmt.Errorf("adding a chunk table to layer %s: %w", d.Digest, err)
		}
		layers = append(layers, layer)
	}
	_, err = c.Finish(layers, args)
	return c, err
}

// chunked adds the layer d in the file path, with a chunk table.
func (l Layout) chunked(ctx context.Context, path string, d ocispec.Descriptor) (Layer, error) {
	var ref chunks.Ref
	desc, err := l.Blob(d.MediaType, func(f *os.File) error {
		old, err := os.Open(path)
		if err != nil {
			return err
		}
		defer old.Close()
		size, err := io.Copy(f, old)
		if err != nil {
			return err
		}
		ref, _, _, err = backstore.AppendChunks(ctx, f, size)
		return err
	})
	desc.Annotations = maps.Clone(d.Annotations)
	desc.Annotations[labels.BlobDigest] = desc.Digest.String()
	desc.Annotations[labels.BlobSize] = strconv.FormatInt(desc.Size, 10)
	maps.Copy(desc.Annotations, labels.WithChunks(ref))
	return Layer{desc, desc.Digest}, err
}
