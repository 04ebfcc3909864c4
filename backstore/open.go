package backstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// parallelOpens is how many layers of an image are opened at once.
const parallelOpens = 32

// Stream returns the uncompressed LSMT stream of the layer blob r: what trace
// offsets count. It is r itself if r is a bare LSMT file.
func Stream(ctx context.Context, r blob.ReaderAt) (blob.ReaderAt, error) {
	payload, err := tarblob.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	z, err := zfile.Open(ctx, payload)
	if errors.Is(err, zfile.ErrFormat) {
		return payload, nil
	}
	if err != nil {
		return nil, err
	}
	return z, nil
}

// OpenLayer opens the layer blob r, whatever it is wrapped in. Where nothing
// is cached that takes two to four round trips: the start of the blob, the
// jump table with what lies before it, and what of header, trailer and index
// was not yet there. The error wraps lsmt.ErrFormat if r is no overlaybd
// layer.
func OpenLayer(ctx context.Context, r blob.ReaderAt) (*lsmt.Layer, error) {
	return openLayer(ctx, r, func(stream blob.ReaderAt) blob.ReaderAt { return stream })
}

// openLayer is OpenLayer with the LSMT stream decorated.
func openLayer(ctx context.Context, r blob.ReaderAt, decorate func(blob.ReaderAt) blob.ReaderAt) (*lsmt.Layer, error) {
	w := newWindow(r)
	defer w.close()
	stream, err := Stream(ctx, w)
	if err != nil {
		return nil, err
	}
	return lsmt.Open(ctx, decorate(stream))
}

// Open opens the layer blobs of an image in parallel, bottom first and
// without a trace layer, and stacks them.
func Open(ctx context.Context, layers []blob.ReaderAt) (*lsmt.Image, error) {
	return open(ctx, layers, func(_ int, stream blob.ReaderAt) blob.ReaderAt { return stream })
}

// OpenRecorded is Open with every read that is made of the layers' LSMT streams
// noted by r, from the headers, trailers and indexes on that opening reads: what
// overlaybd records, in its units.
func OpenRecorded(ctx context.Context, layers []blob.ReaderAt, r *tracelayer.Recorder) (*lsmt.Image, error) {
	return open(ctx, layers, r.Layer)
}

func open(ctx context.Context, layers []blob.ReaderAt, decorate func(int, blob.ReaderAt) blob.ReaderAt) (*lsmt.Image, error) {
	if len(layers) > lsmt.MaxLayers {
		return nil, fmt.Errorf("opening image: %d layers are more than the %d the format can stack: merge some that follow each other into one (reprise layer merge)", len(layers), lsmt.MaxLayers)
	}
	opened := make([]*lsmt.Layer, len(layers))
	var segments atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelOpens)
	for i, r := range layers {
		g.Go(func() error {
			l, err := openLayer(ctx, r, func(stream blob.ReaderAt) blob.ReaderAt { return decorate(i, stream) })
			if err != nil {
				return fmt.Errorf("opening layer %d (%s): %w", i, blob.Name(r), err)
			}
			// Stack would refuse, too, but only with all of it in memory.
			if segments.Add(int64(l.Len())) > lsmt.MaxSegments {
				return fmt.Errorf("opening layer %d (%s): image has more than %d segments", i, blob.Name(r), lsmt.MaxSegments)
			}
			opened[i] = l
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return lsmt.Stack(opened)
}
