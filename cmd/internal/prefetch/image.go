package prefetch

import (
	"context"
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// errInvalid is wrapped by errors about what a trace layer has in it.
var errInvalid = errors.New("the trace is not valid")

// image does what there is to do for img and tells the observer.
func (p *Prefetcher) image(daemon context.Context, k key, img backstore.Image) {
	ctx, cancel := context.WithTimeout(blob.WithPriority(daemon, blob.Background), longest)
	defer cancel()
	if img.Trace == nil {
		found, ok, err := p.finder.Find(ctx, img, k.manifest)
		switch {
		case daemon.Err() != nil, err == nil && !ok:
			return
		case !ok:
			p.observer.Prefetched(img.Ref, Failed, replay.Stats{}, err)
			return
		case err != nil:
			p.observer.Skipped(img.Ref, err)
		}
		img = found
	}
	outcome, stats, err := p.fetch(ctx, k, img)
	switch {
	case daemon.Err() != nil:
		return
	case errors.Is(err, errInvalid), errors.Is(err, chain.ErrPlanDigest):
		outcome = Invalid
	case err != nil:
		outcome = Failed
	}
	p.observer.Prefetched(img.Ref, outcome, stats, err)
}

// fetch fetches what the trace of img says.
func (p *Prefetcher) fetch(ctx context.Context, k key, img backstore.Image) (Outcome, replay.Stats, error) {
	remote := remoteLayers(img)
	if len(remote) == 0 {
		return Local, replay.Stats{}, nil
	}
	var blobs []blob.Blob
	for _, desc := range remote {
		b, err := p.source.Open(img.Ref, desc)
		if err != nil {
			return Failed, replay.Stats{}, err
		}
		blobs = append(blobs, b)
	}
	p.keep(k, blobs)
	r := reader{room: p.plans, source: p.source}
	defer r.release()
	t, err := r.read(ctx, img)
	if err != nil {
		return Failed, replay.Stats{}, err
	}
	if t.plan == nil && t.slot != nil {
		list, done, err := p.slot(ctx, img, &t)
		if done || err != nil {
			return list, replay.Stats{}, err
		}
	}
	stats, err := p.source.Replay(ctx, img.Ref, t.trace, t.plan, remote)
	return Replayed, stats, err
}

// remoteLayers returns the layers of img that are read from its registry.
func remoteLayers(img backstore.Image) []ocispec.Descriptor {
	var layers []ocispec.Descriptor
	for _, l := range img.Layers {
		if l.Remote() && img.Ref != "" {
			layers = append(layers, l.Descriptor())
		}
	}
	return layers
}
