package image

import (
	"context"
	"errors"
	"io"

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
