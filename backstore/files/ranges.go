package files

import (
	"context"
	"errors"
	"fmt"

	"github.com/reprise-containers/reprise/backstore/erofs"
	"github.com/reprise-containers/reprise/backstore/ext4"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Range is a part of a device in bytes.
type Range struct{ Off, Size int64 }

// Ranges returns where the files with the given paths lie on the device of an
// image: in the order of paths, each file whole, up to its size rounded up to
// sectors of 512 bytes, and each once. The metadata that a kernel reads to mount
// dev and to find them is read from dev meanwhile. Paths that lead nowhere are
// returned as missing.
//
// The error wraps ext4.ErrFormat or erofs.ErrFormat if dev has no file system
// that can be read, or if what is read of it is damaged, io.ErrUnexpectedEOF if
// it leads beyond the end of dev, and ErrLimit if it is larger than anybody makes
// one.
func Ranges(ctx context.Context, dev blob.ReaderAt, paths []string) (ranges []Range, missing []string, err error) {
	missing, err = each(ctx, dev, paths, func(r Range) error {
		ranges = append(ranges, r)
		return nil
	})
	return ranges, missing, err
}

// each calls visit with the ranges of each path, right after the metadata that
// leads there was read.
func each(ctx context.Context, dev blob.ReaderAt, paths []string, visit func(Range) error) (missing []string, err error) {
	t, err := open(ctx, newPages(dev))
	if err != nil {
		return nil, err
	}
	if err := t.mount(ctx); err != nil {
		return nil, fmt.Errorf("opening file system: %w", err)
	}
	w := newWalk(t, dev.Size(), visit)
	for _, p := range paths {
		switch err := w.path(ctx, p); {
		case errors.Is(err, errMissing):
			missing = append(missing, p)
		case err != nil:
			return nil, fmt.Errorf("finding %q: %w", p, err)
		}
	}
	return missing, nil
}

// open returns the file system on a device, whichever it is.
func open(ctx context.Context, r blob.ReaderAt) (tree, error) {
	e, err := erofs.Open(ctx, r)
	if err == nil {
		return erofsTree{e}, nil
	}
	if !errors.Is(err, erofs.ErrFormat) {
		return nil, fmt.Errorf("opening file system: %w", err)
	}
	x, xerr := ext4.Open(ctx, r)
	if xerr == nil {
		return ext4Tree{x}, nil
	}
	if !errors.Is(xerr, ext4.ErrFormat) {
		return nil, fmt.Errorf("opening file system: %w", xerr)
	}
	return nil, fmt.Errorf("opening file system: %w; %w", err, xerr)
}
