package erofs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	// maxHops bounds the symbolic links on a path, as Linux does.
	maxHops = 40
	// maxPath is the length in bytes of the longest path that Linux takes.
	maxPath = 4095
	// maxSteps bounds the names on a path, those of the targets of symbolic
	// links included, and so how deep directories can be.
	maxSteps = 2 * maxPath
)

// split returns the parts of a path below the root. A path that leaves the root
// is an error: nobody means that.
func split(name string) ([]string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if len(clean) > maxPath {
		return nil, fmt.Errorf("path of %d bytes that starts with %q; the limit is %d", len(clean), clean[:64], maxPath)
	}
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
	for hops, steps := 0, 0; len(todo) > 0; steps++ {
		if steps > maxSteps || hops > maxHops {
			return nil, fmt.Errorf("path %q leads through more than %d names or %d symbolic links", name, maxSteps, maxHops)
		}
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at.dir.parent
			continue
		}
		next, err := l.step(ctx, at, part)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", name, err)
		}
		if next.isDir() {
			next.fresh = true
			at = next
			continue
		}
		hops++
		if strings.HasPrefix(next.target, "/") {
			at = l.root
		}
		todo = append(strings.Split(next.target, "/"), todo...)
	}
	return at, nil
}

// step returns what name is in dir on the way to something else: a directory, or
// a symbolic link that the layer states.
func (l *Layer) step(ctx context.Context, dir *node, name string) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	children, err := l.children(ctx, dir)
	if err != nil {
		return nil, err
	}
	next := children[name]
	switch {
	case next != nil && next.isDir(), next != nil && next.fresh && next.kind == typeSymlink:
		return next, nil
	case next != nil && next.fresh:
		return nil, fmt.Errorf("the same layer states %q as no directory", name)
	}
	return l.implied(ctx, dir, name)
}

// implied makes a directory that the layer needs and does not state.
func (l *Layer) implied(ctx context.Context, dir *node, name string) (*node, error) {
	attr, alone := Attr{Mode: TypeDir | 0o755}, true
	if l.base != nil && !dir.dir.alone {
		found, err := l.base.resolve(ctx, path.Join(dir.path(), name))
		if err != nil {
			return nil, err
		}
		if found != nil && found.IsDir() {
			if found.Xattrs, err = l.base.Xattrs(ctx, found); err != nil {
				return nil, err
			}
			attr, alone = found.Attr, false
		}
	}
	n := newNode(attr)
	n.dir.alone = alone
	if err := l.hold(name, n); err != nil {
		return nil, err
	}
	dir.set(name, n)
	return n, nil
}

// path returns the path of a directory from the root.
func (n *node) path() string {
	var names []string
	for ; n.dir.parent != n; n = n.dir.parent {
		names = append(names, n.dir.name)
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

// within reports whether the directory n is dir or below it.
func (n *node) within(dir *node) bool {
	for ; n != dir; n = n.dir.parent {
		if n.dir.parent == n {
			return false
		}
	}
	return true
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
		if err := ctx.Err(); err != nil {
			return nil, err
		}
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
