package erofs

import (
	"context"
	"fmt"
	"io/fs"
)

// Extent is a part of the device in bytes.
type Extent struct{ Off, Size int64 }

// Extents returns where the content of i lies: blocks, and the rest of it behind
// the inode. What it says is not checked against the device.
func (m *Image) Extents(i *Inode) []Extent {
	var out []Extent
	plain := i.Size - int64(i.tail())
	if plain > 0 && i.start != noBlock {
		out = append(out, Extent{int64(i.start) * BlockSize, plain})
	}
	if n := int64(i.tail()); n > 0 {
		out = append(out, Extent{m.offset(i.NID) + int64(i.header+i.xattrs), n})
	}
	return out
}

// Lookup returns the entry of name in the directory dir. The error wraps
// fs.ErrNotExist if there is none. It reads the blocks that a kernel would.
func (m *Image) Lookup(ctx context.Context, dir *Inode, name string) (Dirent, error) {
	if !dir.IsDir() {
		return Dirent{}, fmt.Errorf("%w: inode %d is no directory", ErrFormat, dir.NID)
	}
	// The name is in the last block that begins with it or one before it.
	var found []Dirent
	for from, to := int64(0), (dir.Size+BlockSize-1)/BlockSize; from < to; {
		mid := (from + to - 1) / 2
		b := make([]byte, min(BlockSize, dir.Size-mid*BlockSize))
		if err := m.ReadAt(ctx, dir, b, mid*BlockSize); err != nil {
			return Dirent{}, err
		}
		entries, err := decodeDirents(b)
		if err != nil {
			return Dirent{}, fmt.Errorf("reading directory %d: %w", dir.NID, err)
		}
		if entries[0].Name > name {
			to = mid
			continue
		}
		if found, from = entries, mid+1; entries[0].Name == name {
			break
		}
	}
	for _, e := range found {
		if e.Name == name {
			return e, nil
		}
	}
	return Dirent{}, fmt.Errorf("looking %q up in directory %d: %w", name, dir.NID, fs.ErrNotExist)
}
