package image

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Opened is the device that an image's layers form. It must be closed.
type Opened struct {
	*lsmt.Image
	files []io.Closer
}

// Open opens the layers of an overlaybd image.
func (l Layout) Open(ctx context.Context) (*Opened, error) {
	_, m, err := l.Manifest()
	if err != nil {
		return nil, err
	}
	o := &Opened{}
	var layers []blob.ReaderAt
	for _, d := range m.Layers {
		f, err := blob.OpenFile(l.BlobPath(d))
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		o.files = append(o.files, f)
		layers = append(layers, f)
	}
	if o.Image, err = backstore.Open(ctx, layers); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Close closes the layers.
func (o *Opened) Close() error {
	var errs []error
	for _, f := range o.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// dump writes what the layers hold to a new sparse file as long as it reaches.
func (o *Opened) dump(ctx context.Context, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	for s := range o.Segments() {
		if s.Zeroed {
			continue
		}
		from, to := s.Offset*lsmt.SectorSize, (s.Offset+s.Length)*lsmt.SectorSize
		for at := from; at < to; at += int64(len(buf)) {
			p := buf[:min(int64(len(buf)), to-at)]
			if err := blob.ReadFull(ctx, o, p, at); err != nil {
				return err
			}
			if _, err := f.WriteAt(p, at); err != nil {
				return err
			}
		}
	}
	return nil
}
