package traces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// maxMissing bounds how many of the files that an image lacks are named.
const maxMissing = 5

// parallelReads is how many ranges are fetched at a time.
const parallelReads = 16

// Rebuild makes the plan of a recording that has none, or none for these layers
// of an image, bottom first without a trace layer, and writes its data to data
// unless that is nil. Of the layers it reads what the plan is of, some of it
// twice. A trace with reads that the layers do not have is of another image and
// refused. Notes are about files of a list that the image lacks, and about reads that
// the plan is without.
func Rebuild(ctx context.Context, r *Recording, layers []blob.Blob, data *os.File) (plan *tracelayer.Plan, notes []string, err error) {
	all := make([]fetchplan.Layer, len(layers))
	plain := make([]blob.ReaderAt, len(layers))
	for i, b := range layers {
		d := b.Descriptor()
		ref, err := labels.Chunks(d.Annotations)
		if err == nil && !ref.IsZero() {
			err = ref.ValidateIn(d.Size)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("layer %d (%s): %w", i, d.Digest, err)
		}
		plain[i], all[i] = b, fetchplan.Layer{Digest: d.Digest, Size: d.Size, Blob: b, Table: ref}
	}
	trace := r.Trace
	if trace == nil {
		trace, notes, err = listed(ctx, plain, r.Paths)
	} else {
		err = fits(ctx, plain, trace)
	}
	if err != nil {
		return nil, nil, err
	}
	var to io.Writer // a nil *os.File is none
	if data != nil {
		to = data
	}
	plan, skipped, err := fetchplan.Build(ctx, all, trace, to)
	if skipped > 0 {
		notes = append(notes, fmt.Sprintf("the plan is without %d of %d reads: it has no room for more", skipped, len(trace)))
	}
	return plan, notes, err
}

// listed returns what reading the files of a list reads. Where it has to be
// fetched, that is done first: what is at hand is read in the same order each
// time.
func listed(ctx context.Context, layers []blob.ReaderAt, paths []string) (tracelayer.Trace, []string, error) {
	if !local(layers) {
		dev, err := backstore.Open(ctx, layers)
		if err != nil {
			return nil, nil, err
		}
		ranges, _, err := files.Ranges(ctx, dev, paths)
		if err == nil {
			err = warm(ctx, func(yield func(blob.ReaderAt, tracelayer.Span) bool) {
				for _, r := range ranges {
					for r.Size > 0 {
						n := min(r.Size, tracelayer.MaxCount)
						if !yield(dev, tracelayer.Span{Off: r.Off, Size: n}) {
							return
						}
						r.Off, r.Size = r.Off+n, r.Size-n
					}
				}
			})
		}
		if err != nil {
			return nil, nil, fmt.Errorf("reading the files of the list: %w", err)
		}
	}
	trace, missing, err := files.Trace(ctx, layers, paths)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("looking up the files of the list: %w", err)
	case len(missing) == len(paths):
		return nil, nil, errors.New("the image has none of the files of the list")
	case len(missing) == 0:
		return trace, nil, nil
	}
	note := "the image has no " + strings.Join(missing[:min(len(missing), maxMissing)], ", ")
	if n := len(missing) - maxMissing; n > 0 {
		note += fmt.Sprintf(", nor %d other files of the list", n)
	}
	return trace, []string{note}, nil
}

// fits returns an error that says which reads of a trace the layers do not have.
// If they have all, it makes them, so that what has to be fetched is at hand.
func fits(ctx context.Context, layers []blob.ReaderAt, trace tracelayer.Trace) error {
	streams, sizes := make([]blob.ReaderAt, len(layers)), make([]int64, len(layers))
	for i, b := range layers {
		s, err := backstore.Stream(ctx, b)
		if err != nil {
			return fmt.Errorf("opening layer %d: %w", i, err)
		}
		streams[i], sizes[i] = s, s.Size()
	}
	if _, skipped := trace.Within(sizes); skipped > 0 {
		return fmt.Errorf("%d of %d reads are not of this image: %w: %s", skipped, len(trace), ErrOtherImage, outside(trace, sizes))
	}
	if local(layers) {
		return nil
	}
	return warm(ctx, func(yield func(blob.ReaderAt, tracelayer.Span) bool) {
		for _, r := range trace {
			for r.Count > 0 {
				n := min(r.Count, tracelayer.MaxCount)
				if !yield(streams[r.Layer], tracelayer.Span{Off: r.Off, Size: n}) {
					return
				}
				r.Off, r.Count = r.Off+n, r.Count-n
			}
		}
	})
}

// outside says which reads of a trace are not of streams of these sizes.
func outside(trace tracelayer.Trace, sizes []int64) string {
	ends := map[uint32]int64{} // of the reads of each layer
	for _, r := range trace {
		ends[r.Layer] = max(ends[r.Layer], r.Off+r.Count)
	}
	var all []string
	for i, size := range sizes {
		if end := ends[uint32(i)]; end > size {
			all = append(all, fmt.Sprintf("it reads layer %d up to %d bytes, there are %d", i, end, size))
		}
		delete(ends, uint32(i))
	}
	if len(ends) > 0 {
		all = append(all, fmt.Sprintf("it reads %d more layers than the %d of the image", len(ends), len(sizes)))
	}
	if len(all) == 0 {
		return "they are of no bytes, or no reads"
	}
	return strings.Join(all, "; ")
}

// local reports whether nothing of layers has to be fetched.
func local(layers []blob.ReaderAt) bool {
	for _, b := range layers {
		if !blob.Present(b, 0, b.Size()) {
			return false
		}
	}
	return true
}

// warm makes reads of up to tracelayer.MaxCount bytes, several at a time, so that
// what they are of gets into the cache.
func warm(ctx context.Context, reads iter.Seq2[blob.ReaderAt, tracelayer.Span]) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for b, s := range reads {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			p := scratch.Borrow(int(s.Size))
			defer scratch.Return(p)
			return blob.ReadFull(ctx, b, *p, s.Off)
		})
	}
	return g.Wait()
}

// ErrOtherImage is in the chain of errors of traces that were recorded with
// another image than the one they are for.
var ErrOtherImage = errors.New("the trace is of another image")
