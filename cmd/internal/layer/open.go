package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// File is an opened layer. It must be closed.
type File struct {
	*lsmt.Layer
	opens []io.Closer
}

// Close closes the layer's files.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.opens {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Open opens the layer that files are, for reading. With an index file it is a
// writable layer, as it is now. Without, it is one that was sealed or committed,
// whatever it is wrapped in, or a sparse writable one, which needs no index file.
// A writable layer that somebody writes to is an error.
func Open(ctx context.Context, files lsmt.UpperFiles) (_ *File, err error) {
	f := &File{}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error counts
		}
	}()
	if err := f.lock(files.Data); err != nil {
		return nil, err
	}
	data, err := f.open(files.Data)
	if err != nil {
		return nil, err
	}
	if files.Index != "" {
		index, err := f.open(files.Index)
		if err != nil {
			return nil, err
		}
		f.Layer, err = lsmt.OpenWritable(ctx, data, index)
		return f, err
	}
	f.Layer, err = backstore.OpenLayer(ctx, data)
	if err == nil {
		return f, nil
	}
	// Only a layer that was not sealed opens this way, and of these only a sparse
	// one: of what is something else, the first error says more.
	if sparse, sparseErr := lsmt.OpenWritable(ctx, data, nil); sparseErr == nil {
		f.Layer = sparse
		return f, nil
	}
	return f, fmt.Errorf("%w (a layer that was not sealed needs its index file, too)", err)
}

// lock keeps those out who want to write to the layer, and fails if somebody does.
func (f *File) lock(path string) error {
	l, err := os.Open(path)
	if err != nil {
		return err
	}
	f.opens = append(f.opens, l)
	err = unix.Flock(int(l.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("layer %s is in use: somebody may be writing to it", path)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	return nil
}

func (f *File) open(path string) (*lsmt.SparseFile, error) {
	file, err := lsmt.OpenFile(path)
	if err == nil {
		f.opens = append(f.opens, file)
	}
	return file, err
}
