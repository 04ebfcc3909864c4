package zfile

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/reprise-containers/reprise/remote/blob"
)

// jumpTable tells where blocks start. Blocks form groups of 1<<shift: base has
// the offset of each group, delta that of each block from its group. Groups
// are as large as deltas of 16 bits allow, 16 blocks for the usual 4 KiB: 2.5
// bytes a block instead of the 8 of plain offsets. Once complete, both slices
// have an entry for the end of the last block.
type jumpTable struct {
	shift uint
	base  []int64
	delta []uint16
}

// offset returns where block i starts; i may be the number of blocks, for the
// end of the last one.
func (t *jumpTable) offset(i int64) int64 {
	return t.base[i>>t.shift] + int64(t.delta[i])
}

// append adds a block, or the end of the last, at offset at.
func (t *jumpTable) append(at int64) {
	if len(t.delta)&(1<<t.shift-1) == 0 {
		t.base = append(t.base, at)
	}
	t.delta = append(t.delta, uint16(at-t.base[len(t.base)-1]))
}

// maxStored returns the largest length a stored block can have: more than the
// worst case of both algorithms for incompressible data.
func maxStored(blockSize uint32) uint32 {
	return blockSize + blockSize/128 + 128
}

// groupShift returns the shift of a table whose blocks are stored in at most
// longest bytes.
func groupShift(longest uint32) uint {
	shift := uint(0)
	for (uint64(2)<<shift-1)*uint64(longest) <= math.MaxUint16 {
		shift++
	}
	return shift
}

// Pieces in which a jump table is read, in bytes. The first one suffices for
// 1 GiB of 4 KiB blocks. Later ones grow, and with them what has been
// allocated, only as bytes really arrive: the size of a blob is a claim, too.
const (
	firstPiece = 1 << 20
	lastPiece  = 8 << 20
)

// readJumpTable reads, checks and packs the jump table that h, which is
// checked, describes.
func readJumpTable(ctx context.Context, r blob.ReaderAt, h *header) (*jumpTable, error) {
	b := tableBuilder{
		table:    jumpTable{shift: groupShift(maxStored(h.blockSize))},
		end:      HeaderSize + int64(h.dictSize),
		shortest: 1,
		longest:  maxStored(h.blockSize),
	}
	if h.verify {
		b.shortest += checksumSize
	}
	crc := uint32(0)
	left, at := int64(h.blocks)*jumpEntrySize, int64(h.indexOffset)
	var raw []byte
	for piece := int64(firstPiece); left > 0; piece = min(2*piece, lastPiece) {
		raw = slices.Grow(raw[:0], int(min(piece, left)))[:min(piece, left)]
		if err := blob.ReadFull(ctx, r, raw, at); err != nil {
			return nil, fmt.Errorf("reading jump table: %w", err)
		}
		crc = rawCRC(crc, raw)
		if err := b.add(raw); err != nil {
			return nil, fmt.Errorf("jump table at offset %d: %w", h.indexOffset, err)
		}
		at, left = at+int64(len(raw)), left-int64(len(raw))
	}
	if h.has(flagDigest) && crc != h.indexCRC {
		return nil, fmt.Errorf("jump table at offset %d: checksum is %#08x, header says %#08x", h.indexOffset, crc, h.indexCRC)
	}
	if b.end != int64(h.indexOffset) {
		return nil, fmt.Errorf("jump table at offset %d: blocks end at offset %d, not where the table starts", h.indexOffset, b.end)
	}
	return b.finish(), nil
}

// tableBuilder checks stored lengths and packs them.
type tableBuilder struct {
	table             jumpTable
	end               int64 // of the blocks so far
	shortest, longest uint32
}

// add takes the next stored lengths.
func (b *tableBuilder) add(raw []byte) error {
	b.table.delta = slices.Grow(b.table.delta, len(raw)/jumpEntrySize+1)
	b.table.base = slices.Grow(b.table.base, (len(raw)/jumpEntrySize)>>b.table.shift+1)
	for ; len(raw) > 0; raw = raw[jumpEntrySize:] {
		n := binary.LittleEndian.Uint32(raw)
		if n < b.shortest || n > b.longest {
			return fmt.Errorf("stored length %d of block %d is not within %d and %d", n, len(b.table.delta), b.shortest, b.longest)
		}
		b.table.append(b.end)
		b.end += int64(n)
	}
	return nil
}

// finish returns the table without spare memory.
func (b *tableBuilder) finish() *jumpTable {
	b.table.append(b.end)
	b.table.base = slices.Clip(b.table.base)
	if cap(b.table.delta) > len(b.table.delta)*9/8 {
		b.table.delta = slices.Clone(b.table.delta)
	}
	return &b.table
}
