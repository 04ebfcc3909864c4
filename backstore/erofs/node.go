package erofs

import (
	"context"
	"fmt"
	"maps"
)

// node is a file of the image that a Layer makes: one that is new, or one of
// the image below of which at first only number and type are known.
type node struct {
	Attr
	nid    uint64 // 0 if it has none yet
	kind   uint8  // as in a Dirent
	size   int64
	start  uint32 // first block of the content of a regular file
	target string // of a symbolic link
	links  uint32

	// fresh says that the layer states the file, as opposed to what only the
	// layers below have. Of a directory that both have, it is true, too.
	fresh bool
	// dirty says that the inode is not as it is below.
	dirty bool

	// below is the inode of the image below, once it was read.
	below *Inode
	// dir is not nil for directories.
	dir *directory
	// plan is where the node is to be, once that was decided.
	plan *plan
}

// directory is what only directories have.
type directory struct {
	parent   *node // of the root, itself
	name     string
	alone    bool             // the layers below have nothing of that path
	children map[string]*node // nil until read
	blocks   [][]Dirent       // as they are below
	// replaced are files of the layers below that the layer put something
	// else in the place of: their inodes' places are free.
	replaced map[string]*node
}

func (n *node) isDir() bool { return n.kind == typeDir }

// newNode returns a file that the layer states.
func newNode(a Attr) *node {
	n := &node{Attr: a, kind: fileType(a.Mode), start: noBlock, fresh: true, dirty: true}
	if n.isDir() {
		n.dir = &directory{children: map[string]*node{}}
	}
	return n
}

// nodeBelow returns the file of the image below that e names in dir, one node
// for all names of it. A directory has one name only: an image where it has two
// could go round in circles.
func (l *Layer) nodeBelow(dir *node, e Dirent) (*node, error) {
	if n := l.below[e.NID]; n != nil {
		if n.kind != e.Type || n.isDir() {
			return nil, fmt.Errorf("%w: %q in directory %d is inode %d, which is a directory elsewhere or of another type", ErrFormat, e.Name, dir.nid, e.NID)
		}
		return n, nil
	}
	n := &node{nid: e.NID, kind: e.Type}
	if n.isDir() {
		n.dir = &directory{parent: dir, name: e.Name}
	}
	l.below[e.NID] = n
	return n, nil
}

// load reads the inode of a node of the image below.
func (l *Layer) load(ctx context.Context, n *node) error {
	if n.below != nil || n.nid == 0 {
		return nil
	}
	i, err := l.base.Inode(ctx, n.nid)
	if err != nil {
		return err
	}
	if fileType(i.Mode) != n.kind {
		return fmt.Errorf("%w: inode %d has mode %#o, its name says type %d", ErrFormat, n.nid, i.Mode, n.kind)
	}
	if i.Xattrs, err = l.base.Xattrs(ctx, i); err != nil {
		return err
	}
	if i.Type() == TypeSymlink {
		if n.target, err = l.base.ReadLink(ctx, i); err != nil {
			return err
		}
	}
	n.Attr, n.size, n.start, n.links, n.below = i.Attr, i.Size, i.start, i.Nlink, i
	return nil
}

// children returns what is in the directory n.
func (l *Layer) children(ctx context.Context, n *node) (map[string]*node, error) {
	if n.dir.children != nil {
		return n.dir.children, nil
	}
	if err := l.load(ctx, n); err != nil {
		return nil, err
	}
	blocks, err := l.base.dirBlocks(ctx, n.below)
	if err != nil {
		return nil, err
	}
	children := map[string]*node{}
	for _, b := range blocks {
		for _, e := range b {
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if children[e.Name], err = l.nodeBelow(n, e); err != nil {
				return nil, err
			}
		}
	}
	n.dir.blocks, n.dir.children = blocks, children
	return children, nil
}

// set makes c what name is in the directory n, whose children were read.
func (n *node) set(name string, c *node) {
	if old := n.dir.children[name]; old != nil {
		n.drop(name, old)
	}
	n.dir.children[name] = c
	if c.isDir() {
		c.dir.parent, c.dir.name = n, name
	} else {
		c.links++
	}
}

// drop removes the name of old from the directory n.
func (n *node) drop(name string, old *node) {
	delete(n.dir.children, name)
	switch {
	case old.isDir():
		old.unlink()
	case old.fresh:
		old.links--
	default:
		if n.dir.replaced == nil {
			n.dir.replaced = map[string]*node{}
		}
		n.dir.replaced[name] = old
	}
}

// unlink takes the names in a directory that goes, and in those in it, from the
// counts of the files that the layer states.
func (n *node) unlink() {
	for _, c := range n.dir.children {
		switch {
		case c.isDir():
			c.unlink()
		case c.fresh:
			c.links--
		}
	}
}

// copyUp replaces a file of the layers below, called name in n, by one of the
// layer that is the same. Its other names stay with the old one: that is what
// overlayfs makes of it.
func (n *node) copyUp(name string, old *node) *node {
	c := newNode(old.Attr)
	c.Xattrs = maps.Clone(old.Xattrs)
	c.size, c.start, c.target = old.size, old.start, old.target
	n.set(name, c)
	return c
}
