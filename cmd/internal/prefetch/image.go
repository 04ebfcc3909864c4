package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
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
	t, err := p.read(ctx, img)
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

// contents is what was read of a trace layer: a plan, or if it has none, what is
// in its slot.
type contents struct {
	trace backstore.TraceLayer // with what was found out about it
	plan  *tracelayer.Plan
	slot  []byte
}

// read reads the plan of the trace of img, and if it has none, its slot.
func (p *Prefetcher) read(ctx context.Context, img backstore.Image) (contents, error) {
	t := contents{trace: *img.Trace}
	var encoded []byte
	var err error
	if t.trace.Dir != "" {
		encoded, t.slot, err = readDir(t.trace)
	} else {
		encoded, t.slot, err = p.readBlob(ctx, img.Ref, &t.trace)
	}
	if err != nil || encoded == nil {
		return t, err
	}
	if t.plan, err = tracelayer.DecodePlan(encoded); err != nil {
		return t, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return t, nil
}

// readDir reads the files of a trace layer that was unpacked.
func readDir(t backstore.TraceLayer) (plan, slot []byte, err error) {
	plan, err = readFile(filepath.Join(t.Dir, tracelayer.PlanName), tracelayer.MaxPlan)
	switch {
	case errors.Is(err, os.ErrNotExist):
		slot, err = readFile(filepath.Join(t.Dir, tracelayer.SlotName), tracelayer.MaxSlot)
		return nil, slot, err
	case err != nil:
		return nil, nil, err
	case t.Plan.Digest != "" && digest.FromBytes(plan) != t.Plan.Digest:
		return nil, nil, fmt.Errorf("reading %s: %w (%s)", tracelayer.PlanName, chain.ErrPlanDigest, t.Plan.Digest)
	}
	return plan, nil, nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is no regular file", path, errInvalid)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: %w: it is larger than %d bytes", path, errInvalid, limit)
	}
	return text, err
}

// readBlob reads from the blob of a trace layer. Where its plan is is looked up
// and noted in t if annotations do not say it.
func (p *Prefetcher) readBlob(ctx context.Context, ref string, t *backstore.TraceLayer) (plan, slot []byte, err error) {
	b, err := p.source.OpenTrace(ref, t.Layer.Descriptor())
	if err != nil {
		return nil, nil, err
	}
	if t.Plan.Size > 0 {
		plan, err = chain.ReadPlan(ctx, b, t.Plan)
		return plan, nil, err
	}
	found, err := tracelayer.ReadLayer(ctx, b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errInvalid, err)
	}
	if found.Plan.Size > 0 {
		t.Plan = tracelayer.Member{Offset: found.Plan.Off, Size: found.Plan.Size}
		plan, err = chain.ReadPlan(ctx, b, t.Plan)
		return plan, nil, err
	}
	slot = make([]byte, found.Slot.Size)
	if err := blob.ReadFull(ctx, b, slot, found.Slot.Off); err != nil {
		return nil, nil, fmt.Errorf("reading the trace: %w", err)
	}
	return nil, slot, nil
}
