package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

const (
	maxLinks  = 40      // symbolic links on a path, as Linux does
	maxPath   = 4096    // bytes
	maxName   = 255     // bytes
	maxSteps  = 8192    // names on a path, those of symbolic links included
	maxInodes = 2 << 20 // below all paths that end in a slash
	maxRanges = 4 << 20 // visited
	sector    = 512     // bytes
)

// errMissing is about a path that leads nowhere.
var errMissing = errors.New("not found")

// walk finds files by path.
type walk struct {
	t      tree
	device int64 // bytes
	visit  func(Range) error

	seen   map[uint64]bool // inodes whose content was visited
	listed map[uint64]bool // directories all below which was visited
	inodes int             // pushed by below
	ranges int             // visited
	bytes  int64           // visited
}

func newWalk(t tree, device int64, visit func(Range) error) *walk {
	return &walk{t: t, device: device, visit: visit, seen: make(map[uint64]bool), listed: make(map[uint64]bool)}
}

// path visits what a path names. The error is errMissing if that is nothing.
func (w *walk) path(ctx context.Context, p string) error {
	inode, err := w.resolve(ctx, p)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(p, "/") {
		_, err := w.content(ctx, inode)
		return err
	}
	i, err := w.t.stat(ctx, inode)
	if err != nil {
		return err
	}
	if i.kind != directory {
		return errMissing
	}
	return w.below(ctx, inode)
}

// resolve returns the inode that a path leads to. Like that of a process whose
// root the image is, it never leaves it.
func (w *walk) resolve(ctx context.Context, p string) (uint64, error) {
	if len(p) > maxPath {
		return 0, errMissing
	}
	at := []uint64{w.t.root()} // directories from the root to where it has come
	todo := strings.Split(p, "/")
	for links, steps := 0, 0; len(todo) > 0; steps++ {
		name := todo[0]
		todo = todo[1:]
		if links > maxLinks || steps > maxSteps || len(name) > maxName {
			return 0, errMissing
		}
		switch name {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		inode, i, err := w.step(ctx, at[len(at)-1], name)
		if err != nil {
			return 0, err
		}
		if i.kind != symlink {
			at = append(at, inode)
			continue
		}
		target, err := w.t.link(ctx, inode)
		if err != nil {
			return 0, err
		}
		links++
		if strings.HasPrefix(target, "/") {
			at = at[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at[len(at)-1], nil
}

// step returns what has the name in what should be a directory.
func (w *walk) step(ctx context.Context, dir uint64, name string) (uint64, info, error) {
	i, err := w.t.stat(ctx, dir)
	if err != nil {
		return 0, i, err
	}
	if i.kind != directory {
		return 0, i, errMissing
	}
	inode, err := w.t.lookup(ctx, dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, i, errMissing
	}
	if err == nil {
		i, err = w.t.stat(ctx, inode)
	}
	return inode, i, err
}

// below visits what an inode has, and if it is a directory, all below it, in the
// order in which directories have it.
func (w *walk) below(ctx context.Context, inode uint64) error {
	todo := []uint64{inode} // the next one last
	for len(todo) > 0 {
		inode, todo = todo[len(todo)-1], todo[:len(todo)-1]
		i, err := w.content(ctx, inode)
		if err != nil {
			return err
		}
		if i.kind != directory || w.listed[inode] {
			continue
		}
		w.listed[inode] = true
		from := len(todo)
		err = w.t.children(ctx, inode, func(child uint64) error {
			if w.inodes++; w.inodes > maxInodes {
				return fmt.Errorf("%w: more than %d files", ErrLimit, maxInodes)
			}
			todo = append(todo, child)
			return nil
		})
		if err != nil {
			return err
		}
		slices.Reverse(todo[from:])
	}
	return nil
}

// content visits where the content of an inode lies, unless it was visited.
func (w *walk) content(ctx context.Context, inode uint64) (info, error) {
	if err := ctx.Err(); err != nil {
		return info{}, err
	}
	i, err := w.t.stat(ctx, inode)
	if err != nil || i.kind == other || w.seen[inode] {
		return i, err
	}
	w.seen[inode] = true
	whole := (i.size + sector - 1) / sector * sector
	return i, w.t.content(ctx, inode, func(logical int64, r Range) error {
		r.Size = min(r.Size, whole-logical, w.device-r.Off)
		if r.Off < 0 || r.Size <= 0 {
			return nil
		}
		w.ranges++
		w.bytes += r.Size
		if w.ranges > maxRanges || w.bytes > w.device {
			return fmt.Errorf("%w: %d bytes of content in %d parts, on a device of %d", ErrLimit, w.bytes, w.ranges, w.device)
		}
		return w.visit(r)
	})
}
