package fetchplan

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// readPiece is how many bytes of a stream are read at once, so that extents
	// of what reaches the blob for that are not longer than maxExtent.
	readPiece = 128 << 10
	// maxHeader is the size of an extent of what opening reads, in bytes. Nothing
	// can be done with a part of it, and longer ones compress better.
	maxHeader = 1 << 20
	// firstRead is more than the first read of a blob takes in, in bytes.
	firstRead = 64 << 10
)

// Build returns what a node that has nothing fetches to read t from the image of
// layers, bottom first, and how many records of t it left out because they do not
// fit the layers, or the plan. If data is not nil it gets the bytes of the extents in order, as
// Extent.Stored says. The same arguments give the same plan and data.
//
// What is needed to open all layers comes first. Of reads that would take more
// extents than a plan may have, the first are in it.
func Build(ctx context.Context, layers []Layer, t tracelayer.Trace, data io.Writer) (_ *tracelayer.Plan, skipped int, err error) {
	return build(ctx, layers, t, data, maxExtents)
}

// build is Build for about most extents.
func build(ctx context.Context, layers []Layer, t tracelayer.Trace, data io.Writer, most int) (_ *tracelayer.Plan, skipped int, err error) {
	all, plan, err := openAll(ctx, layers, openFresh)
	if err != nil {
		return nil, 0, fmt.Errorf("planning what to fetch: %w", err)
	}
	q := newQueue(layers, most)
	first := firstOf(layers)
	for i, o := range all {
		if first[i] == i {
			q.header(i, o.header)
		}
	}
	skipped, err = q.replay(ctx, all, t)
	if err == nil {
		plan.Extents = upTo(q.extents(), tracelayer.MaxExtents)
		err = fill(ctx, layers, plan.Extents, data)
	}
	if err == nil {
		err = plan.Validate()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("planning what to fetch: %w", err)
	}
	return plan, skipped, nil
}

// openFresh opens l as a node does that has nothing of it.
func openFresh(ctx context.Context, l Layer) (*opened, error) {
	log := &logged{ReaderAt: l.Blob, desc: ocispec.Descriptor{Digest: l.Digest, Size: l.Size}}
	var top blob.Blob = log
	if !l.Table.IsZero() && !l.Table.Detached() {
		top = chunks.Verify(log, l.Table, blob.Section(log, l.Table.Offset, l.Table.Size), nil)
	}
	o, err := openBlob(ctx, top)
	if err != nil {
		return nil, err
	}
	o.log, o.top = log, top
	o.header, err = o.opening(ctx)
	return o, err
}

// opening returns what opening o read of its blob, in pieces of whole leaves.
func (o *opened) opening(ctx context.Context) ([]span, error) {
	var c cover
	for _, s := range o.log.take() {
		c.add(s)
	}
	if o.top != blob.Blob(o.log) {
		// The first read of a blob is made before anything is known of leaves,
		// and ends within one.
		if err := o.touch(ctx, span{0, min(c.all()[0].end, firstRead)}); err != nil {
			return nil, err
		}
		for _, s := range o.log.take() {
			c.add(s)
		}
	}
	var pieces []span
	for _, s := range c.all() {
		for s.size() > maxHeader {
			at, err := o.leafAt(ctx, s.off+maxHeader)
			if err != nil {
				return nil, err
			}
			if at <= s.off {
				at = s.off + maxHeader
			}
			pieces = append(pieces, span{s.off, at})
			s.off = at
		}
		pieces = append(pieces, s)
	}
	return pieces, nil
}

// leafAt returns where the leaf that has byte off begins; off without a table.
func (o *opened) leafAt(ctx context.Context, off int64) (int64, error) {
	if err := o.touch(ctx, span{off, off + 1}); err != nil {
		return 0, err
	}
	for _, s := range o.log.take() {
		if s.off <= off && off < s.end {
			off = s.off
		}
	}
	return off, nil
}

// touch reads s for what it makes of it below.
func (o *opened) touch(ctx context.Context, s span) error {
	p := scratch.Borrow(int(s.size()))
	defer scratch.Return(p)
	return blob.ReadFull(ctx, o.top, *p, s.off)
}

// replay makes the reads of t and enters what they need. It returns how many
// records it left out.
func (q *queue) replay(ctx context.Context, all []*opened, t tracelayer.Trace) (skipped int, err error) {
	first := firstOf(q.layers)
	for n, r := range t {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if q.crowded() {
			return skipped + len(t) - n, nil
		}
		if int64(r.Layer) >= int64(len(all)) || !all[r.Layer].fits(r) {
			skipped++
			continue
		}
		for s := range all[r.Layer].unread(r) {
			if err := q.read(ctx, all[r.Layer], first[r.Layer], s); err != nil {
				return 0, fmt.Errorf("reading layer %d: %w", r.Layer, err)
			}
		}
	}
	return skipped, nil
}
