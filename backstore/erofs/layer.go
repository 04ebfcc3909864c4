package erofs

import (
	"context"
	"fmt"
	"maps"
	"math"
)

// maxTarget is the longest target of a symbolic link that Linux takes, in bytes.
const maxTarget = 4095

// Layer collects what one image layer changes. It is not safe for parallel use.
//
// Entries are those of a tar archive, in its order, and mean what they mean to
// a container runtime that unpacks the layer into a directory of its own, for
// overlayfs to put over the layers below.
type Layer struct {
	base  *Image // nil: there is nothing below
	sb    superblock
	root  *node
	below map[uint64]*node // nodes of the image below by number

	next  uint32            // first block that is free
	held  int64             // bytes of metadata in memory, see hold
	patch map[uint32][]byte // blocks of metadata, see put
}

const (
	// maxHeld bounds the metadata that a layer states and that is in memory
	// until it is finished, in bytes: some four million files.
	maxHeld = 1 << 30
	// fileHeld is what a file takes besides its name, its attributes and the
	// target of a link, in bytes.
	fileHeld = 256
)

// hold counts what is kept in memory of n, and refuses attributes that can't be
// stored and what is too much.
func (l *Layer) hold(name string, n *node) error {
	xattrs, err := encodeXattrs(n.Xattrs)
	if err != nil {
		return err
	}
	l.held += fileHeld + int64(len(name)+len(n.target)+len(xattrs))
	if l.held > maxHeld {
		return fmt.Errorf("the names and attributes of the layer's files take more than %d bytes", int64(maxHeld))
	}
	return nil
}

// File is a file that a layer states.
type File struct {
	Attr
	// Size is the length of the content of a regular file in bytes, and
	// Start its first block, as Allocate returned it.
	Size  int64
	Start uint32
	// Target is where a symbolic link leads.
	Target string
}

// NewLayer returns a layer without entries over base; nil if it is the first.
// uuid becomes that of the file system.
func NewLayer(ctx context.Context, base *Image, uuid [16]byte) (*Layer, error) {
	l := &Layer{
		base:  base,
		sb:    superblock{uuid: uuid, root: rootNID},
		below: map[uint64]*node{},
		next:  1,
		patch: map[uint32][]byte{},
	}
	if base == nil {
		l.root = newNode(Attr{Mode: TypeDir | 0o755})
		l.root.nid = rootNID
		l.root.dir.parent = l.root
		return l, nil
	}
	if int64(base.sb.blocks) > base.r.Size()/BlockSize {
		return nil, fmt.Errorf("%w: %d blocks on a device of %d bytes", ErrFormat, base.sb.blocks, base.r.Size())
	}
	if base.sb.root != rootNID || base.sb.meta != 0 {
		return nil, fmt.Errorf("%w: root directory in inode %d from block %d: it was made by another program and can't be changed",
			ErrFormat, base.sb.root, base.sb.meta)
	}
	l.sb.inodes, l.next = base.sb.inodes, base.sb.blocks
	l.root = &node{nid: rootNID, kind: typeDir, dir: &directory{}}
	l.root.dir.parent = l.root
	l.below[rootNID] = l.root
	return l, l.load(ctx, l.root)
}

// FirstBlock returns the block that the first call of Allocate returns.
func (l *Layer) FirstBlock() uint32 { return l.next }

// Allocate returns the first of the blocks that take size bytes of content.
func (l *Layer) Allocate(size int64) (uint32, error) {
	if size <= 0 {
		return noBlock, nil
	}
	n := (size-1)/BlockSize + 1
	if n >= math.MaxUint32-int64(l.next) {
		return 0, errTooLarge
	}
	start := l.next
	l.next += uint32(n)
	return start, nil
}

// Put adds a file under a path. What has that name gives way, unless both are
// directories: then f says what is known of it, and what is in it stays; if the
// layer stated it before, extended attributes are added. The
// root directory is what it is; an entry for it is ignored.
func (l *Layer) Put(ctx context.Context, name string, f File) error {
	if f.Type() == TypeSymlink && (f.Target == "" || len(f.Target) > maxTarget) {
		return fmt.Errorf("symbolic link with a target of %d bytes; there must be 1 to %d", len(f.Target), maxTarget)
	}
	if fileType(f.Mode) == 0 {
		return fmt.Errorf("mode %#o has no type of file", f.Mode)
	}
	dir, base, old, err := l.lookup(ctx, name)
	if err != nil || dir == nil {
		return err
	}
	if f.IsDir() && old != nil && old.isDir() {
		if old.fresh {
			f.Xattrs = union(old.Xattrs, f.Xattrs, "")
		}
		old.Attr, old.fresh, old.dirty = f.Attr, true, true
		return l.hold(base, old)
	}
	n := newNode(f.Attr)
	switch f.Type() {
	case TypeRegular:
		n.size, n.start = f.Size, f.Start
	case TypeSymlink:
		n.size, n.target = int64(len(f.Target)), f.Target
	}
	if err := l.hold(base, n); err != nil {
		return err
	}
	dir.set(base, n)
	return nil
}

// Link gives the file called target another name. The attributes, all but the
// type, become those of the file, as when the new name is given them; extended
// ones are added. A file of the layers below that is linked to
// becomes one of this layer: its content is not stored again, and names that it
// has besides target stay with the old one.
func (l *Layer) Link(ctx context.Context, name, target string, a Attr) error {
	tdir, tbase, n, err := l.lookup(ctx, target)
	if err != nil {
		return err
	}
	if n == nil || n.isDir() {
		return fmt.Errorf("hard link to %q, which is no file of this layer or one below", target)
	}
	dir, base, old, err := l.lookup(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case dir == nil || old == n && n.fresh:
		return nil
	case old != nil && old.isDir() && tdir.within(old):
		return fmt.Errorf("hard link to %q, which is in the directory that the link replaces", target)
	}
	if !n.fresh {
		n = tdir.copyUp(tbase, n)
	}
	if dir != tdir || base != tbase {
		dir.set(base, n)
	}
	a.Xattrs = union(n.Xattrs, a.Xattrs, capability)
	if a.Rdev = n.Rdev; n.Type() == TypeSymlink {
		a.Mode = n.Mode
	}
	a.Mode = n.Type() | a.Mode&^TypeMask
	n.Attr = a
	return l.hold(base, n)
}

// capability is the attribute that Linux takes from a file whose owner is set.
const capability = "security.capability"

// union returns the attributes of both, those of more in preference, but of old
// not the one called without.
func union(old, more map[string]string, without string) map[string]string {
	if len(old) == 0 {
		return more
	}
	all := maps.Clone(old)
	delete(all, without)
	maps.Copy(all, more)
	return all
}

// Whiteout hides what the layers below have under a path. What this layer has
// there stays.
func (l *Layer) Whiteout(ctx context.Context, name string) error {
	dir, base, n, err := l.lookup(ctx, name)
	switch {
	case err != nil || n == nil:
		return err
	case !n.fresh:
		dir.drop(base, n)
	case n.isDir():
		return l.hide(ctx, n)
	}
	return nil
}

// Remove removes what is there under a path, whether this layer stated it or one
// below.
func (l *Layer) Remove(ctx context.Context, name string) error {
	dir, base, n, err := l.lookup(ctx, name)
	if err == nil && n != nil {
		dir.drop(base, n)
	}
	return err
}

// Opaque hides what the layers below have in a directory.
func (l *Layer) Opaque(ctx context.Context, name string) error {
	parts, err := split(name)
	if err != nil {
		return err
	}
	dir, err := l.descend(ctx, name, parts)
	if err != nil {
		return err
	}
	return l.hide(ctx, dir)
}

// hide removes from dir, and from the directories in it, what the layer does
// not state.
func (l *Layer) hide(ctx context.Context, dir *node) error {
	children, err := l.children(ctx, dir)
	if err != nil {
		return err
	}
	for name, n := range children {
		switch {
		case !n.fresh:
			dir.drop(name, n)
		case n.isDir():
			if err := l.hide(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}
