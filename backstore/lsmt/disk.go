package lsmt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// DiskOptions say how a disk image becomes a layer.
type DiskOptions struct {
	Identity // VirtualSize 0 means the size of the disk

	// Base is what the layers below read as, if the new layer shall hold
	// only what differs from it: blocks that became zero are recorded as
	// zeroed. Without it the layer is complete: what reads as zeros is left
	// out, so it must be the bottom one.
	Base blob.ReaderAt

	// KeepZeros stores blocks of zeros as data where the disk holds them,
	// and leaves out only its holes. It has no effect with a Base.
	KeepZeros bool
}

// diskBlock is the unit in which disks are compared, in bytes.
const diskBlock = 4096

// CommitDisk writes the disk image disk as a committed layer to w, reading
// only where disk or Base hold data if they implement Sparse.
func CommitDisk(ctx context.Context, w io.Writer, disk blob.ReaderAt, opts DiskOptions) error {
	id := opts.Identity
	if id.VirtualSize == 0 {
		id.VirtualSize = disk.Size()
	}
	c := diskCommitter{opts: opts, disk: disk, pieces: [2][]byte{make([]byte, copySize), make([]byte, copySize)}}
	var err error
	if disk.Size() > id.VirtualSize {
		err = fmt.Errorf("disk of %d bytes is larger than the virtual size %d", disk.Size(), id.VirtualSize)
	} else if c.committer, err = newCommitter(w, id); err == nil {
		err = c.run(ctx, id.VirtualSize)
	}
	if err != nil {
		return fmt.Errorf("committing disk %s: %w", blob.Name(disk), err)
	}
	return nil
}

type diskCommitter struct {
	*committer
	opts   DiskOptions
	disk   blob.ReaderAt
	pieces [2][]byte // of disk and base
}

func (c *diskCommitter) run(ctx context.Context, size int64) error {
	for off := int64(0); off < size; {
		start, end, err := c.next(off, size)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for off = start; off < end; off += copySize {
			if err := c.piece(ctx, off, min(end-off, copySize)); err != nil {
				return err
			}
		}
		off = end
	}
	return c.finish()
}

// next returns the next range that must be looked at: where disk or base hold
// data, in whole blocks.
func (c *diskCommitter) next(off, size int64) (start, end int64, err error) {
	start, end, err = nextData(c.disk, off)
	if c.opts.Base != nil {
		s, e, baseErr := nextData(c.opts.Base, off)
		switch {
		case errors.Is(err, io.EOF):
			start, end, err = s, e, baseErr
		case err == nil && baseErr == nil && s <= end && e >= start:
			start, end = min(start, s), max(end, e)
		case err == nil && baseErr == nil && s < start:
			start, end = s, e
		case err == nil && !errors.Is(baseErr, io.EOF):
			err = baseErr
		}
	}
	if err != nil {
		return 0, 0, err
	}
	start -= start % diskBlock
	end += (diskBlock - end%diskBlock) % diskBlock
	if start = max(start, off); start >= size {
		return 0, 0, io.EOF
	}
	return start, min(end, size), nil
}

// nextData is Sparse for any r.
func nextData(r blob.ReaderAt, off int64) (start, end int64, err error) {
	if s, ok := r.(Sparse); ok {
		return s.NextData(off)
	}
	if off >= r.Size() {
		return 0, 0, io.EOF
	}
	return off, r.Size(), nil
}

// piece commits n bytes from off on, at most copySize.
func (c *diskCommitter) piece(ctx context.Context, off, n int64) error {
	disk, base := c.pieces[0][:n], c.pieces[1][:n]
	if err := readPadded(ctx, c.disk, disk, off); err != nil {
		return fmt.Errorf("reading disk: %w", err)
	}
	if c.opts.Base != nil {
		if err := readPadded(ctx, c.opts.Base, base, off); err != nil {
			return fmt.Errorf("reading base: %w", err)
		}
	}
	// Blocks of the same kind are written together.
	start, kind := 0, skip
	for at := 0; at < len(disk); at += diskBlock {
		end := min(at+diskBlock, len(disk))
		next := c.classify(disk[at:end], base[at:end])
		if next == kind {
			continue
		}
		if err := c.emit(kind, off+int64(start), disk[start:at]); err != nil {
			return err
		}
		start, kind = at, next
	}
	return c.emit(kind, off+int64(start), disk[start:])
}

// What becomes of a block.
type blockKind int

const (
	skip  blockKind = iota // the layer says nothing
	zero                   // recorded as zeroed
	store                  // stored
)

//nolint:gochecknoglobals // a constant that Go can't express
var zeros [diskBlock]byte

func (c *diskCommitter) classify(block, base []byte) blockKind {
	isZero := bytes.Equal(block, zeros[:len(block)])
	switch {
	case c.opts.Base == nil && isZero && !c.opts.KeepZeros, c.opts.Base != nil && bytes.Equal(block, base):
		return skip
	case c.opts.Base != nil && isZero:
		return zero
	}
	return store
}

func (c *diskCommitter) emit(kind blockKind, off int64, p []byte) error {
	switch {
	case len(p) == 0 || kind == skip:
		return nil
	case kind == zero:
		return c.zero(uint64(off/SectorSize), uint64(len(p)/SectorSize))
	}
	return c.data(uint64(off/SectorSize), p)
}

// readPadded fills p from offset off of r, with zeros after its end.
func readPadded(ctx context.Context, r blob.ReaderAt, p []byte, off int64) error {
	n := max(min(r.Size()-off, int64(len(p))), 0)
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return blob.ReadFull(ctx, r, p[:n], off)
}
