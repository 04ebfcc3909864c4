package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/zfile"
)

// Convert makes the overlaybd image of an ordinary one in the folder dir, with
// the disk image that its layers form. It is made each time, for it is the
// converter that is measured.
func Convert(ctx context.Context, src Layout, dir string, z zfile.Options, args []string) (Layout, error) {
	l := Layout{dir}
	layers, err := convertLayers(ctx, src, l, z)
	if err != nil {
		return l, fmt.Errorf("converting %s: %w", src.Dir, err)
	}
	if _, err := l.Finish(layers, args); err != nil {
		return l, err
	}
	o, err := l.Open(ctx)
	if err != nil {
		return l, err
	}
	return l, errors.Join(o.dump(ctx, l.Disk()), o.Close())
}

func convertLayers(ctx context.Context, src, dst Layout, z zfile.Options) (layers []Layer, err error) {
	_, m, err := src.Manifest()
	if err != nil {
		return nil, err
	}
	c, err := convert.NewChain(convert.Options{Compression: z})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var digests []digest.Digest
	var id convert.ID
	for _, d := range m.Layers {
		// Any chain of digests that tells layers apart will do.
		digests = append(digests, d.Digest)
		id.ParentChainID, id.ChainID = id.ChainID, identity.ChainID(digests)
		layer, err := dst.converted(ctx, c, src.BlobPath(d), id)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// converted adds the layer that an archive, compressed or not, becomes.
func (l Layout) converted(ctx context.Context, c *convert.Chain, archive string, id convert.ID) (_ Layer, err error) {
	f, err := os.Open(archive)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	plain, err := compression.DecompressStream(f)
	if err != nil {
		return Layer{}, err
	}
	defer plain.Close()
	layer, err := c.Add(ctx, plain, id)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, layer.Close()) }()
	desc, err := l.Blob(ocispec.MediaTypeImageLayer, func(f *os.File) error {
		_, err := layer.Write(ctx, f)
		return err
	})
	return overlaybdLayer(desc, Erofs), err
}
