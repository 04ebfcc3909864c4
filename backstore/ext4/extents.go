package ext4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	extentMagic  = 0xf30a
	extentEntry  = 12 // bytes, of a header as well
	extentLevels = 5
	unwritten    = 1 << 15 // lengths above are of blocks that read as zeros

	directBlocks = 12
)

// errStop ends a visit early.
var errStop = errors.New("visited enough")

// Extent is a part of a file that lies together on the device. All are in bytes.
type Extent struct {
	// Logical is its offset in the file.
	Logical int64
	// Off and Size are of the device. The last extent of a file reaches to the
	// end of a block, past the end of the file.
	Off, Size int64
}

// Extents calls visit with the parts of i that are on the device, in order. What
// is not, reads as zeros. The first error of visit ends it. A file that is kept
// in its inode has the inode for its only extent.
func (m *Image) Extents(ctx context.Context, i *Inode, visit func(Extent) error) error {
	switch {
	case i.Size == 0 || !i.hasContent():
		return nil
	case i.flags&flagInline != 0:
		return visit(Extent{0, i.at, i.length})
	case i.Type() == TypeSymlink && i.Size < inBlock:
		return nil
	}
	w := &extentWalk{m: m, inode: i, visit: visit}
	w.blocks = uint64((i.Size-1)/m.sb.blockSize + 1)
	var err error
	if i.flags&flagExtents != 0 {
		err = w.tree(ctx, i.block[:], -1)
	} else {
		err = w.maps(ctx)
	}
	if err == nil {
		err = w.flush()
	}
	return err
}

// extentWalk puts the extents of a file together.
type extentWalk struct {
	m      *Image
	inode  *Inode
	visit  func(Extent) error
	blocks uint64 // of the file
	next   uint64 // no block of the file below is found any more

	// A run that is not yet visited.
	logical, physical, length uint64
}

// add enters n blocks of the file that begin at logical.
func (w *extentWalk) add(logical, physical, n uint64) error {
	if logical < w.next {
		return fmt.Errorf("%w: extents of inode %d are out of order", ErrFormat, w.inode.Number)
	}
	w.next = logical + n
	if logical >= w.blocks {
		return nil // preallocated behind the end
	}
	n = min(n, w.blocks-logical)
	if err := w.m.onDevice(physical, n); err != nil {
		return fmt.Errorf("extent of inode %d: %w", w.inode.Number, err)
	}
	if w.length > 0 && logical == w.logical+w.length && physical == w.physical+w.length {
		w.length += n
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.logical, w.physical, w.length = logical, physical, n
	return nil
}

// flush visits the run that was put together.
func (w *extentWalk) flush() error {
	if w.length == 0 {
		return nil
	}
	size := w.m.sb.blockSize
	e := Extent{int64(w.logical) * size, int64(w.physical) * size, int64(w.length) * size}
	w.length = 0
	return w.visit(e)
}

// tree walks a node of an extent tree, whose depth must be that given unless it
// is negative.
func (w *extentWalk) tree(ctx context.Context, b []byte, depth int) error {
	le := binary.LittleEndian
	entries, levels := int(le.Uint16(b[2:])), int(le.Uint16(b[6:]))
	if le.Uint16(b) != extentMagic || (entries+1)*extentEntry > len(b) || levels > extentLevels || depth >= 0 && levels != depth {
		return fmt.Errorf("%w: extents of inode %d are damaged", ErrFormat, w.inode.Number)
	}
	for k := range entries {
		e := b[(k+1)*extentEntry:]
		logical := uint64(le.Uint32(e))
		if levels == 0 {
			n := uint64(le.Uint16(e[4:]))
			if n > unwritten {
				continue
			}
			physical := uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32
			if err := w.add(logical, physical, n); err != nil {
				return err
			}
			continue
		}
		if logical < w.next {
			return fmt.Errorf("%w: extents of inode %d are out of order", ErrFormat, w.inode.Number)
		}
		w.next = logical
		node, err := w.m.readBlock(ctx, uint64(le.Uint32(e[4:]))|uint64(le.Uint16(e[8:]))<<32)
		if err == nil {
			err = w.tree(ctx, node, levels-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maps walks the block map of an old inode: twelve blocks, and then blocks of
// pointers in one, two and three levels.
func (w *extentWalk) maps(ctx context.Context) error {
	at := uint64(0)
	span := uint64(1) // blocks that a pointer stands for
	perBlock := uint64(w.m.sb.blockSize / 4)
	for k := 0; k < directBlocks+3 && at < w.blocks; k++ {
		level := 0
		if k >= directBlocks {
			level = k - directBlocks + 1
			span *= perBlock
		}
		if p := binary.LittleEndian.Uint32(w.inode.block[4*k:]); p != 0 {
			if err := w.mapped(ctx, uint64(p), level, at, span); err != nil {
				return err
			}
		}
		at += span
	}
	return nil
}

// mapped walks what a pointer stands for: span blocks of the file from at on.
func (w *extentWalk) mapped(ctx context.Context, block uint64, level int, at, span uint64) error {
	if level == 0 {
		return w.add(at, block, 1)
	}
	b, err := w.m.readBlock(ctx, block)
	if err != nil {
		return err
	}
	span /= uint64(len(b) / 4)
	for ; len(b) > 0 && at < w.blocks; b, at = b[4:], at+span {
		if p := binary.LittleEndian.Uint32(b); p != 0 {
			if err := w.mapped(ctx, uint64(p), level-1, at, span); err != nil {
				return err
			}
		}
	}
	return nil
}
