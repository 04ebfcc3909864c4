package convert

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// metadata is the device as the layers so far make it, but for the content of
// regular files that was added: what later layers look up. It is a blob.ReaderAt.
type metadata struct {
	size   int64
	lower  *lsmt.Image // layers that were converted before, or nil
	f      *os.File
	end    int64            // of f, bytes
	blocks map[uint32]int64 // where in f a block is
}

func newMetadata(dir string, size int64) (*metadata, error) {
	f, err := os.CreateTemp(dir, "reprise-metadata-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &metadata{size: size, f: f, blocks: map[uint32]int64{}}, nil
}

// add puts the blocks of one more layer on top.
func (m *metadata) add(blocks []erofs.Block) error {
	for _, b := range blocks {
		at, ok := m.blocks[b.Number]
		if !ok {
			at = m.end
			m.end += erofs.BlockSize
			m.blocks[b.Number] = at
		}
		if _, err := m.f.WriteAt(b.Data, at); err != nil {
			return fmt.Errorf("writing a temporary file: %w", err)
		}
	}
	return nil
}

// Size implements blob.ReaderAt.
func (m *metadata) Size() int64 { return m.size }

// ReadAt implements blob.ReaderAt.
func (m *metadata) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		number, at := (off+int64(done))/erofs.BlockSize, (off+int64(done))%erofs.BlockSize
		n := min(len(p)-done, erofs.BlockSize-int(at))
		if err := m.block(ctx, p[done:done+n], uint32(number), at); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// block reads a part of one block.
func (m *metadata) block(ctx context.Context, p []byte, number uint32, at int64) error {
	if off, ok := m.blocks[number]; ok {
		_, err := m.f.ReadAt(p, off+at)
		return err
	}
	if m.lower == nil {
		return blob.Permanent(errors.New("there is no metadata in the block"))
	}
	return blob.ReadFull(ctx, m.lower, p, int64(number)*erofs.BlockSize+at)
}

// Close gives the disk space back.
func (m *metadata) Close() error { return m.f.Close() }
