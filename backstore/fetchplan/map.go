package fetchplan

import (
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/tracelayer"
)

// Map returns where in the layers' blobs the reads of t lie, in order, and how many
// records of t it left out because they do not fit the layers, bottom first, or the
// plan. It opens the layers and reads nothing else of them: Sum and Stored of the extents
// are zero, and what opens a layer or verifies it is in no extent.
//
// Of reads that would take more extents than a plan may have, the first are in it.
func Map(ctx context.Context, layers []Layer, t tracelayer.Trace) (_ *tracelayer.Plan, skipped int, err error) {
	return mapped(ctx, layers, t, maxExtents)
}

// mapped is Map for about most extents.
func mapped(ctx context.Context, layers []Layer, t tracelayer.Trace, most int) (_ *tracelayer.Plan, skipped int, err error) {
	plan, skipped, err := locate(ctx, layers, t, most)
	if err == nil {
		plan.Extents = upTo(plan.Extents, tracelayer.MaxExtents)
		err = plan.Validate()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("mapping a trace: %w", err)
	}
	return plan, skipped, nil
}

// upTo returns the first most extents of list.
func upTo(list []tracelayer.Extent, most int) []tracelayer.Extent {
	return list[:min(len(list), most)]
}

// locate is mapped for a plan that is not known to be valid.
func locate(ctx context.Context, layers []Layer, t tracelayer.Trace, most int) (_ *tracelayer.Plan, skipped int, err error) {
	all, plan, err := openAll(ctx, layers, func(ctx context.Context, l Layer) (*opened, error) {
		return openBlob(ctx, l.Blob)
	})
	if err != nil {
		return nil, 0, err
	}
	first := firstOf(layers)
	for n, r := range t {
		if err := ctx.Err(); err != nil {
			return nil, 0, context.Cause(ctx)
		}
		if len(plan.Extents) >= most {
			return plan, skipped + len(t) - n, nil
		}
		if int64(r.Layer) >= int64(len(all)) || !all[r.Layer].fits(r) {
			skipped++
			continue
		}
		o := all[r.Layer]
		for s := range o.unread(r) {
			for stored := range o.stored(s) {
				plan.Extents = appendExtent(plan.Extents, first[r.Layer], stored, maxExtent)
			}
		}
	}
	return plan, skipped, nil
}

// stored yields where in the blob the bytes s of the stream are stored, in pieces
// of whole units.
func (o *opened) stored(s span) func(yield func(span) bool) {
	return func(yield func(span) bool) {
		for s.off < s.end {
			n := min(max(o.unit, readPiece/o.unit*o.unit), s.size())
			at, length := s.off, n
			if o.desc.ZFile != nil {
				at, length = o.desc.ZFile.Extent(s.off, n)
			}
			at += o.desc.Payload.Offset
			if !yield(span{at, at + length}) {
				return
			}
			s.off += n
		}
	}
}
