package convert

import (
	"bytes"
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cmd/internal/destination"
	"github.com/reprise-containers/reprise/cmd/internal/source"
	"github.com/reprise-containers/reprise/cmd/internal/transfer"
)

// newTransfer returns the way to the destination.
func (c *conversion) newTransfer() *transfer.Transfer {
	return &transfer.Transfer{
		To: c.cfg.Destination, From: append([]*source.Content{c.cfg.Source}, c.cfg.Known...),
		Dir: c.dir, Parallel: c.cfg.Concurrency, Bars: c.cfg.Bars, Note: c.cfg.Note,
	}
}

// putDocument puts a manifest, index or config.
func (c *conversion) putDocument(ctx context.Context, d document) error {
	return c.cfg.Destination.Put(ctx, d.desc, bytes.NewReader(d.text))
}

// destinationRepository returns the repository of the destination, or "".
func (c *conversion) destinationRepository() string {
	if m, ok := c.cfg.Destination.(destination.Mounter); ok {
		return m.Repository()
	}
	return ""
}

// copyBlobs makes config and layers of a manifest blobs of the destination.
func (c *conversion) copyBlobs(ctx context.Context, o original, r *Image) error {
	var err error
	if o.config != nil {
		err = c.putDocument(ctx, document{transfer.Plain(o.Manifest.Config), o.config})
	} else {
		_, err = c.transfer.Blobs(ctx, c.cfg.Source, []ocispec.Descriptor{o.Manifest.Config})
	}
	if err != nil {
		return err
	}
	stored, err := c.transfer.Blobs(ctx, c.cfg.Source, o.Manifest.Layers)
	for i, d := range o.Manifest.Layers {
		r.Layers = append(r.Layers, &Layer{
			Source: d.Digest, SourceSize: d.Size, Digest: d.Digest, Size: d.Size, Reused: true, Stored: stored[i],
		})
	}
	return err
}
