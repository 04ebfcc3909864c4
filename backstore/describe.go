package backstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

// Description says how a layer blob is wrapped and gives the opened parts.
type Description struct {
	// Tar tells whether the blob is a tar archive.
	Tar bool
	// Payload is where the archive's payload lies in the blob, or all of it.
	Payload tarblob.Range
	// ZFile is the opened ZFile, or nil if the payload is a bare LSMT file.
	ZFile *zfile.Reader
	// FinalHeader tells whether the ZFile's header has the final values.
	FinalHeader bool
	// Layer is the opened layer.
	Layer *lsmt.Layer
}

// Describe opens the layer blob r as OpenLayer does, at the same cost, and
// tells what it went through. With an error it returns the parts that could be
// opened, so that what is whole in a damaged layer can still be looked at.
func Describe(ctx context.Context, r blob.ReaderAt) (Description, error) {
	w := newWindow(r)
	defer w.close()
	d := Description{Payload: tarblob.Range{Size: r.Size()}}

	head := make([]byte, min(tarblob.HeadSize, r.Size()))
	if err := blob.ReadFull(ctx, w, head, 0); err != nil {
		return d, fmt.Errorf("reading the start of %s: %w", blob.Name(r), err)
	}
	at, ok, err := tarblob.Locate(head, r.Size())
	if err != nil {
		return d, fmt.Errorf("opening %s: %w", blob.Name(r), err)
	}
	var stream blob.ReaderAt = w
	if ok {
		d.Tar, d.Payload = true, at
		stream = tarblob.Payload(w, at)
	}
	z, err := zfile.Open(ctx, stream)
	switch {
	case err == nil:
		head := make([]byte, zfile.HeaderSize)
		if err := blob.ReadFull(ctx, stream, head, 0); err != nil {
			return d, fmt.Errorf("reading the header of %s: %w", blob.Name(r), err)
		}
		d.ZFile, d.FinalHeader = z, zfile.Final(head)
		stream = z
	case !errors.Is(err, zfile.ErrFormat):
		return d, err
	}
	d.Layer, err = lsmt.Open(ctx, stream)
	return d, err
}
