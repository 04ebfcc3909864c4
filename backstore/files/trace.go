package files

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Trace reads the files with the given paths from the image that layers form,
// bottom first and without a trace layer, and returns what is read of the layers
// for that, opening them and all metadata included. Paths that lead nowhere are
// returned as missing. See Ranges for what paths mean and for errors.
func Trace(ctx context.Context, layers []blob.ReaderAt, paths []string) (trace tracelayer.Trace, missing []string, err error) {
	recorder := tracelayer.NewRecorder(0)
	img, err := backstore.OpenRecorded(ctx, layers, recorder)
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, tracelayer.MaxCount)
	missing, err = each(ctx, img, paths, func(r Range) error {
		for r.Size > 0 {
			p := b[:min(r.Size, int64(len(b)))]
			if err := blob.ReadFull(ctx, img, p, r.Off); err != nil {
				return fmt.Errorf("reading content: %w", err)
			}
			r.Off, r.Size = r.Off+int64(len(p)), r.Size-int64(len(p))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	trace = recorder.Stop()
	if n := recorder.Stats().Dropped; n > 0 {
		return nil, nil, fmt.Errorf("%w: %d reads more than a trace holds", ErrLimit, n)
	}
	return trace, missing, nil
}
