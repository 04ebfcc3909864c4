package erofs

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Block is a block of the device that a layer writes, other than content of
// regular files.
type Block struct {
	// Number counts blocks from the start of the device.
	Number uint32
	// Data has BlockSize bytes.
	Data []byte
}

// Finish returns what the layer changes on the device besides the content of
// regular files, in order. The layer can't be used after it.
func (l *Layer) Finish(ctx context.Context) ([]Block, error) {
	p, err := l.place(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range p.dirs {
		if err := p.writeDir(ctx, n); err != nil {
			return nil, fmt.Errorf("writing directory %s: %w", n.path(), err)
		}
	}
	for _, n := range p.files {
		if err := p.writeInode(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := l.writeSuperblock(ctx); err != nil {
		return nil, err
	}
	blocks := make([]Block, 0, len(l.patch))
	for _, number := range slices.Sorted(maps.Keys(l.patch)) {
		blocks = append(blocks, Block{number, l.patch[number]})
	}
	return blocks, nil
}

// entries returns group i of the names of the directory n, with numbers.
func (n *node) entries(i int) []Dirent {
	group := n.plan.groups[i]
	entries := make([]Dirent, len(group))
	for k, name := range group {
		c := n
		switch name {
		case ".":
		case "..":
			c = n.dir.parent
		default:
			c = n.dir.children[name]
		}
		entries[k] = Dirent{name, c.nid, c.kind}
	}
	return entries
}

// writeDir writes those blocks of a directory that are not what they were. One
// that is behind its inode is written with that.
func (l *Layer) writeDir(ctx context.Context, n *node) error {
	for i := range n.plan.groups {
		entries := n.entries(i)
		if !n.plan.moved && i < len(n.dir.blocks) && slices.Equal(entries, n.dir.blocks[i]) {
			continue
		}
		if n.plan.inline {
			n.plan.write = true
			continue
		}
		block := make([]byte, BlockSize)
		copy(block, encodeDirents(entries))
		if err := l.put(ctx, int64(n.plan.start+uint32(i))*BlockSize, block); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layer) writeInode(ctx context.Context, n *node) error {
	if !n.plan.write {
		return nil
	}
	i := Inode{
		Attr: n.Attr, NID: n.nid, Size: n.plan.size, Nlink: n.links,
		start: n.plan.start, header: inodeSize, xattrs: len(n.plan.xattrs),
	}
	b := append(i.encode(), n.plan.xattrs...)
	var tail []byte
	switch {
	case n.plan.inline && n.isDir():
		tail = encodeDirents(n.entries(0))
	case n.kind == typeSymlink:
		tail = []byte(n.target)
	}
	if n.plan.inline {
		i.layout = layoutInline
		copy(b, i.encode())
		b = append(b, tail...)
	} else if len(tail) > 0 {
		block := make([]byte, BlockSize)
		copy(block, tail)
		if err := l.put(ctx, int64(n.plan.start)*BlockSize, block); err != nil {
			return err
		}
	}
	b = append(b, make([]byte, roundUp(len(b), slotSize)-len(b))...)
	return l.put(ctx, int64(n.nid)*slotSize, b)
}

func (l *Layer) writeSuperblock(ctx context.Context) error {
	l.sb.blocks = l.next
	if err := l.put(ctx, superOffset, make([]byte, superSize)); err != nil {
		return err
	}
	l.sb.encode(l.patch[0])
	return nil
}

// put changes the device from offset off on. A block of the image below is read
// when the first part of it changes.
func (l *Layer) put(ctx context.Context, off int64, p []byte) error {
	for len(p) > 0 {
		number, at := uint32(off/BlockSize), int(off%BlockSize)
		n := min(len(p), BlockSize-at)
		block := l.patch[number]
		if block == nil {
			block = make([]byte, BlockSize)
			if l.base != nil && number < l.base.sb.blocks && n < BlockSize {
				if err := blob.ReadFull(ctx, l.base.r, block, int64(number)*BlockSize); err != nil {
					return fmt.Errorf("reading block %d of the layers below: %w", number, err)
				}
			}
			l.patch[number] = block
		}
		copy(block[at:], p[:n])
		p, off = p[n:], off+int64(n)
	}
	return nil
}
