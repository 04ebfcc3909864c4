package convert

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Chain is an image of which layers are converted, bottom first. It is not safe
// for parallel use; the Layers it returns are.
type Chain struct {
	opts    Options
	meta    *metadata
	skipped []*lsmt.Layer
	layers  int
}

// NewChain returns a Chain without layers. It must be closed.
func NewChain(opts Options) (*Chain, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	m, err := newMetadata(opts.Dir, opts.VirtualSize)
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	return &Chain{opts: opts, meta: m}, nil
}

// Close removes the temporary file. Layers stay.
func (c *Chain) Close() error { return c.meta.Close() }

// Skip puts a layer on top that a Chain with the same options converted before.
// Of b only metadata is read, when a later layer needs it. Layers can be skipped
// only before the first one is added.
func (c *Chain) Skip(ctx context.Context, b blob.ReaderAt) error {
	if c.layers > len(c.skipped) {
		return errors.New("a layer can't be skipped after one was added")
	}
	l, err := backstore.OpenLayer(ctx, b)
	if err != nil {
		return fmt.Errorf("opening converted layer %s: %w", blob.Name(b), err)
	}
	skipped := append(c.skipped, l)
	lower, err := lsmt.Stack(skipped)
	if err != nil {
		return fmt.Errorf("opening converted layer %s: %w", blob.Name(b), err)
	}
	if lower.Size() != c.opts.VirtualSize {
		return fmt.Errorf("converted layer %s has a device of %d bytes, not %d", blob.Name(b), lower.Size(), c.opts.VirtualSize)
	}
	c.meta.lower, c.skipped = lower, skipped
	c.layers++
	return nil
}

// Add reads the tar archive of the next layer, uncompressed, to its end. With an
// error the Chain can't be used any more.
func (c *Chain) Add(ctx context.Context, archive io.Reader, id ID) (_ *Layer, err error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	changes, err := c.changes(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading the file system of the layers below: %w", err)
	}
	content, err := newSpool(c.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			content.Close()
		}
	}()
	a := applier{layer: changes, content: content, limit: c.opts.VirtualSize / erofs.BlockSize}
	if err := a.apply(ctx, archive); err != nil {
		return nil, err
	}
	if err := content.finish(); err != nil {
		return nil, err
	}
	blocks, err := changes.Finish(ctx)
	if err != nil {
		return nil, fmt.Errorf("writing the file system: %w", err)
	}
	if last := int64(blocks[len(blocks)-1].Number); last >= a.limit {
		return nil, errFull(a.limit)
	}
	if err := c.meta.add(blocks); err != nil {
		return nil, err
	}
	c.layers++
	return &Layer{opts: c.opts, id: id, blocks: blocks, content: content}, nil
}

// changes returns what collects the changes of one more layer.
func (c *Chain) changes(ctx context.Context, id ID) (*erofs.Layer, error) {
	var base *erofs.Image
	if c.layers > 0 {
		var err error
		if base, err = erofs.Open(ctx, c.meta); err != nil {
			return nil, err
		}
	}
	var u [16]byte
	if id.ChainID != "" {
		if _, err := hex.Decode(u[:], []byte(id.ChainID.Encoded()[:32])); err != nil {
			return nil, err
		}
	}
	return erofs.NewLayer(ctx, base, u)
}

// errFull is the error of an image that does not fit on its device.
func errFull(limit int64) error {
	return fmt.Errorf("the image does not fit on a device of %d bytes: give it a larger virtual size", limit*erofs.BlockSize)
}
