package ext4

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Root is the number of the root directory.
const Root = 2

// Image reads the file system on a device. It reads what it needs when it needs
// it and keeps nothing, and may be used in parallel.
type Image struct {
	r  blob.ReaderAt
	sb superblock
}

// Open reads the superblock of the device r. The error wraps ErrFormat if there
// is none.
func Open(ctx context.Context, r blob.ReaderAt) (*Image, error) {
	m := &Image{r: r}
	b := make([]byte, superSize)
	if r.Size() < superOffset+superSize {
		return nil, fmt.Errorf("%w: device of %d bytes", ErrFormat, r.Size())
	}
	if err := blob.ReadFull(ctx, r, b, superOffset); err != nil {
		return nil, fmt.Errorf("reading superblock: %w", err)
	}
	var err error
	if m.sb, err = decodeSuperblock(b); err != nil {
		return nil, fmt.Errorf("reading superblock: %w", err)
	}
	return m, nil
}

// BlockSize returns the size of a block in bytes.
func (m *Image) BlockSize() int64 { return m.sb.blockSize }

// Inode returns the inode with the number n.
func (m *Image) Inode(ctx context.Context, n uint64) (*Inode, error) {
	if n == 0 || n > uint64(m.sb.inodes) {
		return nil, fmt.Errorf("%w: inode %d of %d", ErrFormat, n, m.sb.inodes)
	}
	group, index := uint32(n-1)/m.sb.inodesPerGroup, uint32(n-1)%m.sb.inodesPerGroup
	table, err := m.inodeTable(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("reading descriptor of group %d: %w", group, err)
	}
	i := &Inode{Number: n, at: table*m.sb.blockSize + int64(index)*m.sb.inodeSize, length: m.sb.inodeSize}
	b := make([]byte, m.sb.inodeSize)
	if err := m.read(ctx, b, i.at); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", n, err)
	}
	i.decode(b, m.sb.incompat)
	if i.Size < 0 {
		return nil, fmt.Errorf("%w: inode %d has %d bytes", ErrFormat, n, uint64(i.Size))
	}
	return i, nil
}

// inodeTable returns the block at which a group's inodes begin.
func (m *Image) inodeTable(ctx context.Context, group uint32) (int64, error) {
	b := make([]byte, m.sb.descSize)
	if err := m.read(ctx, b, m.sb.descriptor(group)); err != nil {
		return 0, err
	}
	block := uint64(binary.LittleEndian.Uint32(b[8:]))
	if len(b) >= 64 {
		block |= uint64(binary.LittleEndian.Uint32(b[0x28:])) << 32
	}
	return int64(block), m.onDevice(block, 1)
}

// onDevice returns an error unless the blocks are those of the file system.
func (m *Image) onDevice(block, n uint64) error {
	if block >= m.sb.blocks || n > m.sb.blocks-block {
		return fmt.Errorf("%w: blocks %d to %d of %d", ErrFormat, block, block+n, m.sb.blocks)
	}
	return nil
}

// read fills b from the device. That it is behind the end is an error of format.
func (m *Image) read(ctx context.Context, b []byte, off int64) error {
	if off < 0 || off > m.r.Size()-int64(len(b)) {
		return fmt.Errorf("%w: %d bytes at %d of a device of %d", ErrFormat, len(b), off, m.r.Size())
	}
	return blob.ReadFull(ctx, m.r, b, off)
}

// readBlock returns a block.
func (m *Image) readBlock(ctx context.Context, block uint64) ([]byte, error) {
	if err := m.onDevice(block, 1); err != nil {
		return nil, err
	}
	b := make([]byte, m.sb.blockSize)
	return b, m.read(ctx, b, int64(block)*m.sb.blockSize)
}
