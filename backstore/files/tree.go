package files

import (
	"context"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/ext4"
)

// tree is a file system as far as it is needed to find files. Inodes are known
// by their numbers.
type tree interface {
	root() uint64
	// mount reads what a kernel reads before any file.
	mount(ctx context.Context) error
	stat(ctx context.Context, inode uint64) (info, error)
	// lookup returns an error that wraps fs.ErrNotExist if dir, which is a
	// directory, has no such name.
	lookup(ctx context.Context, dir uint64, name string) (uint64, error)
	// children calls visit with the inodes in a directory, without itself and
	// its parent.
	children(ctx context.Context, dir uint64, visit func(inode uint64) error) error
	link(ctx context.Context, inode uint64) (string, error)
	// content calls visit with where the content lies. The last range may reach
	// past its end.
	content(ctx context.Context, inode uint64, visit func(logical int64, r Range) error) error
}

// info is what is known of an inode.
type info struct {
	kind kind
	size int64 // bytes
}

type kind int

const (
	other kind = iota // has no content
	regular
	directory
	symlink
)

// kindOf returns the kind of what has these bits of st_mode.
func kindOf(mode uint16) kind {
	switch mode & ext4.TypeMask {
	case ext4.TypeRegular:
		return regular
	case ext4.TypeDir:
		return directory
	case ext4.TypeSymlink:
		return symlink
	}
	return other
}

type ext4Tree struct{ m *ext4.Image }

func (t ext4Tree) root() uint64 { return ext4.Root }

func (t ext4Tree) mount(ctx context.Context) error { return t.m.ReadToMount(ctx) }

func (t ext4Tree) stat(ctx context.Context, inode uint64) (info, error) {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return info{}, err
	}
	return info{kindOf(i.Mode), i.Size}, nil
}

func (t ext4Tree) lookup(ctx context.Context, dir uint64, name string) (uint64, error) {
	i, err := t.m.Inode(ctx, dir)
	if err != nil {
		return 0, err
	}
	return t.m.Lookup(ctx, i, name)
}

func (t ext4Tree) children(ctx context.Context, dir uint64, visit func(uint64) error) error {
	i, err := t.m.Inode(ctx, dir)
	if err != nil {
		return err
	}
	return t.m.ReadDir(ctx, i, func(_ string, inode uint64) error { return visit(inode) })
}

func (t ext4Tree) link(ctx context.Context, inode uint64) (string, error) {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return "", err
	}
	return t.m.ReadLink(ctx, i)
}

func (t ext4Tree) content(ctx context.Context, inode uint64, visit func(int64, Range) error) error {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return err
	}
	return t.m.Extents(ctx, i, func(e ext4.Extent) error { return visit(e.Logical, Range{e.Off, e.Size}) })
}

type erofsTree struct{ m *erofs.Image }

func (t erofsTree) root() uint64 { return t.m.RootNID() }

func (t erofsTree) mount(ctx context.Context) error {
	_, err := t.m.Root(ctx) // the superblock was read
	return err
}

func (t erofsTree) stat(ctx context.Context, inode uint64) (info, error) {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return info{}, err
	}
	return info{kindOf(i.Mode), i.Size}, nil
}

func (t erofsTree) lookup(ctx context.Context, dir uint64, name string) (uint64, error) {
	i, err := t.m.Inode(ctx, dir)
	if err != nil {
		return 0, err
	}
	e, err := t.m.Lookup(ctx, i, name)
	return e.NID, err
}

func (t erofsTree) children(ctx context.Context, dir uint64, visit func(uint64) error) error {
	i, err := t.m.Inode(ctx, dir)
	if err != nil {
		return err
	}
	entries, err := t.m.ReadDir(ctx, i)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name == "." || e.Name == ".." {
			continue
		}
		if err := visit(e.NID); err != nil {
			return err
		}
	}
	return nil
}

func (t erofsTree) link(ctx context.Context, inode uint64) (string, error) {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return "", err
	}
	return t.m.ReadLink(ctx, i)
}

func (t erofsTree) content(ctx context.Context, inode uint64, visit func(int64, Range) error) error {
	i, err := t.m.Inode(ctx, inode)
	if err != nil {
		return err
	}
	var logical int64
	for _, e := range t.m.Extents(i) {
		if err := visit(logical, Range(e)); err != nil {
			return err
		}
		logical += e.Size
	}
	return nil
}
