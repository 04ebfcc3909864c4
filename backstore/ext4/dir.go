package ext4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

const (
	direntSize = 8 // bytes before a name
	inlineHead = 4 // bytes of a directory in its inode before the entries: the parent
)

// ReadDir calls visit with the names in the directory dir, without "." and "..",
// in the order in which they lie there. The first error of visit ends it.
func (m *Image) ReadDir(ctx context.Context, dir *Inode, visit func(name string, inode uint64) error) error {
	if dir.Type() != TypeDir {
		return fmt.Errorf("%w: inode %d is no directory", ErrFormat, dir.Number)
	}
	if dir.flags&flagInline != 0 {
		return m.readInline(dir, visit)
	}
	return m.Extents(ctx, dir, func(e Extent) error {
		for off := e.Off; off < e.Off+e.Size; off += m.sb.blockSize {
			b, err := m.readBlock(ctx, uint64(off/m.sb.blockSize))
			if err == nil {
				err = m.dirents(b, dir, visit)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// readInline is ReadDir for a directory within its inode. What lies behind the
// first bytes are entries of their own, up to where the attribute ends.
func (m *Image) readInline(dir *Inode, visit func(string, uint64) error) error {
	head := dir.block[inlineHead:]
	if err := m.dirents(head, dir, visit); err != nil {
		return err
	}
	return m.dirents(dir.more, dir, visit)
}

// dirents calls visit with the names of b, a block of a directory or a part of
// one. Nodes of a hashed directory's index look like entries that are not in use.
func (m *Image) dirents(b []byte, dir *Inode, visit func(string, uint64) error) error {
	le := binary.LittleEndian
	for len(b) >= direntSize {
		inode, length, name := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
		if length == 0xffff || length == 0 && m.sb.blockSize == maxBlock {
			length = maxBlock
		}
		if length < direntSize+name || length%4 != 0 || length > len(b) {
			return fmt.Errorf("%w: directory %d is damaged", ErrFormat, dir.Number)
		}
		if s := string(b[direntSize : direntSize+name]); inode != 0 && s != "" && s != "." && s != ".." {
			if err := visit(s, uint64(inode)); err != nil {
				return err
			}
		}
		b = b[length:]
	}
	return nil
}

// Lookup returns the number of the inode that name is in the directory dir. The
// error wraps fs.ErrNotExist if there is none. Of a hashed directory it reads
// what a kernel would, not all.
func (m *Image) Lookup(ctx context.Context, dir *Inode, name string) (uint64, error) {
	var found uint64
	visit := func(s string, inode uint64) error {
		if s != name {
			return nil
		}
		found = inode
		return errStop
	}
	done := false
	var err error
	if dir.flags&flagIndex != 0 && dir.flags&(flagFold|flagInline) == 0 {
		done, err = m.lookupHashed(ctx, dir, name, visit)
	}
	if err == nil && !done {
		err = m.ReadDir(ctx, dir, visit)
	}
	switch {
	case errors.Is(err, errStop):
		return found, nil
	case err != nil:
		return 0, fmt.Errorf("looking %q up in directory %d: %w", name, dir.Number, err)
	}
	return 0, fmt.Errorf("looking %q up in directory %d: %w", name, dir.Number, fs.ErrNotExist)
}

// dirBlock returns the block that is the n-th of a directory.
func (m *Image) dirBlock(ctx context.Context, dir *Inode, n uint32) ([]byte, error) {
	at := int64(n) * m.sb.blockSize
	var block []byte
	err := m.Extents(ctx, dir, func(e Extent) error {
		if at < e.Logical || at >= e.Logical+e.Size {
			return nil
		}
		var err error
		if block, err = m.readBlock(ctx, uint64((e.Off+at-e.Logical)/m.sb.blockSize)); err != nil {
			return err
		}
		return errStop
	})
	switch {
	case errors.Is(err, errStop):
		return block, nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%w: directory %d has no block %d", ErrFormat, dir.Number, n)
}
