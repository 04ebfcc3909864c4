package convert

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// Layer is a layer whose archive was read. It must be closed.
type Layer struct {
	opts    Options
	id      ID
	blocks  []erofs.Block // metadata
	content *spool
}

// Close removes the layer's temporary file.
func (l *Layer) Close() error { return l.content.Close() }

// ContentSize returns the bytes that Write compresses.
func (l *Layer) ContentSize() int64 {
	return l.content.end + int64(len(l.blocks))*erofs.BlockSize
}

// Write writes the layer's blob, with its chunk table, to f, an empty file.
func (l *Layer) Write(ctx context.Context, f *os.File) (backstore.Blob, error) {
	return backstore.WriteBlob(ctx, f, l.opts.Compression, func(w io.Writer) error { return l.commit(ctx, w) })
}

// commit writes the LSMT stream of the layer to w: metadata and content in the
// order of the device.
func (l *Layer) commit(ctx context.Context, w io.Writer) error {
	c, err := lsmt.NewCommitter(w, lsmt.Identity{
		UUID: uuid(l.id.ChainID), Parent: uuid(l.id.ParentChainID), VirtualSize: l.opts.VirtualSize,
	})
	if err != nil {
		return err
	}
	blocks := l.blocks
	for _, r := range l.content.runs {
		for len(blocks) > 0 && blocks[0].Number < r.block {
			if err := c.Data(int64(blocks[0].Number)*erofs.BlockSize, blocks[0].Data); err != nil {
				return err
			}
			blocks = blocks[1:]
		}
		if err := l.copy(ctx, c, r); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		if err := c.Data(int64(b.Number)*erofs.BlockSize, b.Data); err != nil {
			return err
		}
	}
	return c.Finish()
}

// copy writes a run of content.
func (l *Layer) copy(ctx context.Context, c *lsmt.Committer, r run) error {
	buf := make([]byte, min(int64(copyBlocks), int64(r.blocks))*erofs.BlockSize)
	for done := int64(0); done < int64(r.blocks)*erofs.BlockSize; done += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = buf[:min(int64(len(buf)), int64(r.blocks)*erofs.BlockSize-done)]
		if _, err := l.content.f.ReadAt(buf, r.off+done); err != nil {
			return fmt.Errorf("reading a temporary file: %w", err)
		}
		if err := c.Data(int64(r.block)*erofs.BlockSize+done, buf); err != nil {
			return err
		}
	}
	return nil
}
