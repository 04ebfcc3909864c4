package prefetch

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// piece is how many bytes of a file in a list are read at once.
	piece = 256 << 10
	// parallelPieces is how many such reads are under way; how many requests
	// that makes at once is the registry's limit.
	parallelPieces = 8
)

// slot makes of what is in a slot a plan, or, if it is a list, reads the files in
// it; done says which.
func (p *Prefetcher) slot(ctx context.Context, img backstore.Image, t *contents) (o Outcome, done bool, err error) {
	trace, err := tracelayer.Decode(t.slot)
	if errors.Is(err, tracelayer.ErrFormat) {
		return Listed, true, p.list(ctx, img, t.slot)
	}
	if err != nil {
		return Failed, true, fmt.Errorf("%w: %w", errInvalid, err)
	}
	t.slot = nil // which may be large
	layers, remote, foreign, err := p.mapped(img, trace)
	if err != nil {
		return Failed, true, err
	}
	var skipped int
	if t.plan, skipped, err = fetchplan.Map(ctx, layers, remote); err != nil {
		return Failed, true, err
	}
	if skipped += foreign; skipped > 0 {
		p.observer.Skipped(img.Ref, fmt.Errorf("%d of the %d reads of its trace are not within its layers, or are too many", skipped, len(trace)))
	}
	return Replayed, false, nil
}

// mapped returns the layers of img that come from its registry, the records of the
// trace that are of them, and how many are of no layer at all.
func (p *Prefetcher) mapped(img backstore.Image, t tracelayer.Trace) (layers []fetchplan.Layer, of tracelayer.Trace, foreign int, err error) {
	index := make(map[uint32]uint32) // in layers, by that in img
	for i, l := range img.Layers {
		if !l.Remote() {
			continue
		}
		b, err := p.source.Open(img.Ref, l.Descriptor())
		if err != nil {
			return nil, nil, 0, err
		}
		index[uint32(i)] = uint32(len(layers))
		layers = append(layers, fetchplan.Layer{Digest: l.Digest, Size: l.Size, Blob: b})
	}
	for _, r := range t {
		if i, ok := index[r.Layer]; ok {
			r.Layer = i
			of = append(of, r)
		} else if int64(r.Layer) >= int64(len(img.Layers)) {
			foreign++
		}
	}
	return layers, of, foreign, nil
}

// list reads the files that a priority list names, in order, up to the budget.
func (p *Prefetcher) list(ctx context.Context, img backstore.Image, text []byte) error {
	paths, err := tracelayer.ParseList(text)
	if err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	layers, closeAll, err := chain.OpenLayers(p.source.Open, img)
	if err != nil {
		return err
	}
	defer closeAll()
	dev, err := backstore.Open(ctx, layers)
	if err != nil {
		return err
	}
	ranges, missing, err := files.Ranges(ctx, dev, paths)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		p.observer.Skipped(img.Ref, fmt.Errorf("%d of the %d files of its list are not in it, as %q", len(missing), len(paths), missing[0]))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelPieces)
	left := p.cfg.Budget
	for _, r := range ranges {
		for r.Size > 0 && ctx.Err() == nil && (left > 0 || p.cfg.Budget == 0) {
			off, n := r.Off, min(r.Size, piece)
			r.Off, r.Size, left = off+n, r.Size-n, left-n
			if blob.Present(dev, off, n) {
				continue
			}
			g.Go(func() error {
				buf := scratch.Borrow(int(n))
				defer scratch.Return(buf)
				return blob.ReadFull(ctx, dev, *buf, off)
			})
		}
	}
	return g.Wait()
}
