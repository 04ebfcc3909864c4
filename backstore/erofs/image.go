package erofs

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
)

// maxDirectory bounds what is read of a directory, in bytes: millions of names.
const maxDirectory = 256 << 20

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
	block := make([]byte, BlockSize)
	if r.Size() < BlockSize {
		return nil, fmt.Errorf("%w: device of %d bytes", ErrFormat, r.Size())
	}
	if err := blob.ReadFull(ctx, r, block, 0); err != nil {
		return nil, fmt.Errorf("reading superblock: %w", err)
	}
	var err error
	if m.sb, err = decodeSuperblock(block); err != nil {
		return nil, fmt.Errorf("reading superblock: %w", err)
	}
	return m, nil
}

// RootNID returns the number of the root directory.
func (m *Image) RootNID() uint64 { return m.sb.root }

// Root returns the root directory.
func (m *Image) Root(ctx context.Context) (*Inode, error) { return m.Inode(ctx, m.sb.root) }

// offset returns where an inode is, in bytes.
func (m *Image) offset(nid uint64) int64 {
	return int64(m.sb.meta)*BlockSize + int64(nid)*slotSize
}

// Inode returns the inode with the number nid.
func (m *Image) Inode(ctx context.Context, nid uint64) (*Inode, error) {
	if nid > uint64(m.r.Size())/slotSize {
		return nil, fmt.Errorf("%w: inode %d lies beyond the device", ErrFormat, nid)
	}
	at := m.offset(nid)
	b := make([]byte, min(inodeSize, max(0, m.r.Size()-at)))
	if len(b) < compactSize {
		return nil, fmt.Errorf("%w: inode %d lies beyond the device", ErrFormat, nid)
	}
	if err := blob.ReadFull(ctx, m.r, b, at); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", nid, err)
	}
	return decodeInode(b, nid)
}

// Xattrs returns the extended attributes of i by name.
func (m *Image) Xattrs(ctx context.Context, i *Inode) (map[string]string, error) {
	b := make([]byte, i.xattrs)
	if err := blob.ReadFull(ctx, m.r, b, m.offset(i.NID)+int64(i.header)); err != nil {
		return nil, fmt.Errorf("reading extended attributes of inode %d: %w", i.NID, err)
	}
	xattrs, err := decodeXattrs(b)
	if err != nil {
		return nil, fmt.Errorf("reading extended attributes of inode %d: %w", i.NID, err)
	}
	return xattrs, nil
}

// ReadAt reads len(p) bytes of the content of i from offset off, which must be
// within its size.
func (m *Image) ReadAt(ctx context.Context, i *Inode, p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > i.Size {
		return fmt.Errorf("reading %d bytes at %d of inode %d, which has %d", len(p), off, i.NID, i.Size)
	}
	plain := i.Size - int64(i.tail())
	if off < plain {
		n := min(int64(len(p)), plain-off)
		if err := blob.ReadFull(ctx, m.r, p[:n], int64(i.start)*BlockSize+off); err != nil {
			return fmt.Errorf("reading content of inode %d: %w", i.NID, err)
		}
		p, off = p[n:], off+n
	}
	if len(p) == 0 {
		return nil
	}
	at := m.offset(i.NID) + int64(i.header+i.xattrs) + off - plain
	if err := blob.ReadFull(ctx, m.r, p, at); err != nil {
		return fmt.Errorf("reading content of inode %d: %w", i.NID, err)
	}
	return nil
}

// ReadLink returns the target of the symbolic link i.
func (m *Image) ReadLink(ctx context.Context, i *Inode) (string, error) {
	if i.Type() != TypeSymlink || i.Size > BlockSize {
		return "", fmt.Errorf("%w: inode %d is no symbolic link", ErrFormat, i.NID)
	}
	p := make([]byte, i.Size)
	err := m.ReadAt(ctx, i, p, 0)
	return string(p), err
}

// ReadDir returns the entries of the directory i in the order of their names,
// "." and ".." among them.
func (m *Image) ReadDir(ctx context.Context, i *Inode) ([]Dirent, error) {
	blocks, err := m.dirBlocks(ctx, i)
	if err != nil {
		return nil, err
	}
	var all []Dirent
	for _, b := range blocks {
		all = append(all, b...)
	}
	return all, nil
}

// dirBlocks is ReadDir by block.
func (m *Image) dirBlocks(ctx context.Context, i *Inode) ([][]Dirent, error) {
	if !i.IsDir() || i.Size > maxDirectory || i.Size > m.r.Size() {
		return nil, fmt.Errorf("%w: inode %d of %d bytes is no directory", ErrFormat, i.NID, i.Size)
	}
	data := make([]byte, i.Size)
	if err := m.ReadAt(ctx, i, data, 0); err != nil {
		return nil, err
	}
	var blocks [][]Dirent
	for len(data) > 0 {
		n := min(len(data), BlockSize)
		entries, err := decodeDirents(data[:n])
		if err != nil {
			return nil, fmt.Errorf("reading directory %d: %w", i.NID, err)
		}
		blocks, data = append(blocks, entries), data[n:]
	}
	return blocks, nil
}
