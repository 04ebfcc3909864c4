package blockd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// openLayers opens and merges layer files; without any the image is nil.
func openLayers(ctx context.Context, names []string) (*lsmt.Image, func(), error) {
	var files []io.Closer
	done := func() {
		for _, f := range files {
			f.Close()
		}
	}
	if len(names) == 0 {
		return nil, done, nil
	}
	var readers []blob.ReaderAt
	for _, name := range names {
		f, err := lsmt.OpenFile(name)
		if err != nil {
			done()
			return nil, nil, err
		}
		files = append(files, f)
		readers = append(readers, f)
	}
	m, err := backstore.Open(ctx, readers)
	if err != nil {
		done()
		return nil, nil, err
	}
	return m, done, nil
}

// Opened is a device's layers, opened without a daemon. It must be closed.
type Opened struct {
	*lsmt.Upper
	done func()
}

// Open opens the layers of a device that no daemon has, as its next daemon would.
func (c Config) Open(ctx context.Context, id string) (*Opened, error) {
	s, err := c.settle(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.openUpper(ctx, id, s)
}

func (c Config) openUpper(ctx context.Context, id string, s stack) (*Opened, error) {
	lower, done, err := openLayers(ctx, s.Layers)
	if err != nil {
		return nil, err
	}
	var below blob.ReaderAt // not a nil pointer
	if lower != nil {
		below = lower
	}
	u, err := lsmt.OpenUpper(ctx, c.upper(id, strconv.Itoa(s.Upper)), below)
	if err != nil {
		done()
		return nil, fmt.Errorf("opening device %s: %w", id, err)
	}
	return &Opened{u, done}, nil
}

// Close closes the layers.
func (o *Opened) Close() error {
	err := o.Upper.Close()
	o.done()
	return err
}

// Seal seals the writable layer of a device that no daemon has and returns the
// files of all its layers, bottom first.
func (c Config) Seal(ctx context.Context, id string) ([]string, error) {
	s, err := c.settle(ctx, id)
	if err != nil {
		return nil, err
	}
	below, err := c.size(ctx, s.Layers)
	if err != nil {
		return nil, err
	}
	files := c.upper(id, strconv.Itoa(s.Upper))
	return append(s.Layers, files.Data), lsmt.SealUpper(ctx, files, below)
}

// Layers is a stack of layers that can only be read. It must be closed.
type Layers struct {
	*lsmt.Image
	done func()
}

// OpenLayers opens layer files, bottom first.
func OpenLayers(ctx context.Context, names []string) (*Layers, error) {
	m, done, err := openLayers(ctx, names)
	if err == nil && m == nil {
		err = errors.New("there are no layers")
	}
	if err != nil {
		return nil, err
	}
	return &Layers{m, done}, nil
}

// Close closes the files.
func (l *Layers) Close() { l.done() }

// CommitDisk makes a layer file of a disk image.
func CommitDisk(ctx context.Context, disk, layer string) error {
	r, err := blob.OpenFile(disk)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(layer)
	if err != nil {
		return err
	}
	err = lsmt.CommitDisk(ctx, f, r, lsmt.DiskOptions{})
	return errors.Join(err, f.Close())
}
