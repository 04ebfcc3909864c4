package erofs

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// maxHops bounds the symbolic links on a path, as Linux does for a few more.
const maxHops = 40

// split returns the parts of a path below the root. A path that leaves the root
// is an error: nobody means that.
func split(name string) ([]string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("path %q leaves the root directory", name)
	}
	if clean == "." {
		return nil, nil
	}
	parts := strings.Split(clean, "/")
	for _, p := range parts {
		if len(p) > maxName || strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("path %q has a name of %d bytes or with a NUL; the limit is %d", name, len(p), maxName)
		}
	}
	return parts, nil
}

// lookup returns the directory that name is in, its last part, and what has
// that name. Directories on the way that the layer does not state are made, as
// a container runtime that unpacks the layer does. For the root, dir is nil.
func (l *Layer) lookup(ctx context.Context, name string) (dir *node, base string, n *node, err error) {
	parts, err := split(name)
	if err != nil || len(parts) == 0 {
		return nil, "", nil, err
	}
	dir, err = l.descend(ctx, name, parts[:len(parts)-1])
	if err != nil {
		return nil, "", nil, err
	}
	children, err := l.children(ctx, dir)
	if err != nil {
		return nil, "", nil, err
	}
	base = parts[len(parts)-1]
	if n = children[base]; n != nil {
		err = l.load(ctx, n)
	}
	return dir, base, n, err
}

// descend walks from the root. Symbolic links are followed where the layer
// states them, and stay within the root. A file below that is in the way gives
// way to a directory; one that the layer states is an error.
func (l *Layer) descend(ctx context.Context, name string, todo []string) (*node, error) {
	at := l.root
	for hops := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at.dir.parent
			continue
		}
		children, err := l.children(ctx, at)
		if err != nil {
			return nil, err
		}
		next := children[part]
		switch {
		case next != nil && next.fresh && next.kind == typeSymlink:
			if hops++; hops > maxHops {
				return nil, fmt.Errorf("path %q goes through more than %d symbolic links", name, maxHops)
			}
			if strings.HasPrefix(next.target, "/") {
				at = l.root
			}
			todo = append(strings.Split(next.target, "/"), todo...)
			continue
		case next != nil && next.fresh && !next.isDir():
			return nil, fmt.Errorf("path %q goes through %q, which the same layer states as no directory", name, part)
		case next == nil || !next.isDir():
			if next, err = l.implied(ctx, at, part); err != nil {
				return nil, err
			}
		}
		next.fresh = true
		at = next
	}
	return at, nil
}

// implied makes a directory that the layer needs and does not state.
func (l *Layer) implied(ctx context.Context, dir *node, name string) (*node, error) {
	attr := Attr{Mode: TypeDir | 0o755}
	if l.base != nil {
		found, err := l.base.resolve(ctx, path.Join(dir.path(), name))
		if err != nil {
			return nil, err
		}
		if found != nil && found.IsDir() {
			if found.Xattrs, err = l.base.Xattrs(ctx, found); err != nil {
				return nil, err
			}
			attr = found.Attr
		}
	}
	n := newNode(attr)
	dir.set(name, n)
	return n, nil
}

// path returns the path of a directory from the root.
func (n *node) path() string {
	if n.dir.parent == n {
		return "/"
	}
	return path.Join(n.dir.parent.path(), n.dir.name)
}

// resolve returns the inode of a path, symbolic links followed, or nil.
func (m *Image) resolve(ctx context.Context, name string) (*Inode, error) {
	root, err := m.Root(ctx)
	if err != nil {
		return nil, err
	}
	above := []*Inode{root}
	todo := strings.Split(name, "/")
	for hops := 0; len(todo) > 0; {
		part, at := todo[0], above[len(above)-1]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			above = above[:max(len(above)-1, 1)]
			continue
		}
		next, err := m.child(ctx, at, part)
		if next == nil || err != nil {
			return nil, err
		}
		if next.Type() != TypeSymlink {
			above = append(above, next)
			continue
		}
		target, err := m.ReadLink(ctx, next)
		if hops++; err != nil || hops > maxHops {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			above = above[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return above[len(above)-1], nil
}

// child returns what name is in i, or nil.
func (m *Image) child(ctx context.Context, i *Inode, name string) (*Inode, error) {
	if !i.IsDir() {
		return nil, nil
	}
	entries, err := m.ReadDir(ctx, i)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name == name {
			return m.Inode(ctx, e.NID)
		}
	}
	return nil, nil
}
