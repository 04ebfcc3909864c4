package warm

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/fetchplan"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/snapshot/labels"
	"github.com/reprise-containers/reprise/tracelayer"
)

// errInvalid is wrapped by errors about what a trace layer has in it.
var errInvalid = errors.New("the trace is not valid")

// mergeGap is how many bytes between two extents are fetched with them: a request
// more costs an upstream more than they do.
const mergeGap = 64 << 10

// image is one that is worked on.
type image struct {
	w *Warmer
	job
	origin string
	held   []*part
	spent  int64 // bytes of extents that were asked for
	left   int64 // bytes that were left out
}

// part is a blob of the image, by way of the cache.
type part struct {
	w   *Warmer
	x   *cache.Content
	src fill.Source
}

// open holds a blob until release.
func (im *image) open(desc ocispec.Descriptor) (*part, error) {
	if err := desc.Digest.Validate(); err != nil || desc.Size <= 0 {
		return nil, fmt.Errorf("%w: a blob %q of %d bytes", errInvalid, desc.Digest, desc.Size)
	}
	// What others have of it is not given up for a size that a manifest claims.
	if x, ok := im.w.cache.Find(im.origin, desc.Digest); ok {
		size := x.Descriptor().Size
		x.Release()
		if size != desc.Size {
			return nil, fmt.Errorf("%w: blob %s has %d bytes and not %d", errInvalid, desc.Digest, size, desc.Size)
		}
	}
	x, err := im.w.cache.Hold(im.origin, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return nil, err
	}
	p := &part{im.w, x, im.Source(desc)}
	im.held = append(im.held, p)
	return p, nil
}

// openLayers opens all layers of the image, in their order.
func (im *image) openLayers() ([]blob.ReaderAt, error) {
	parts := make([]blob.ReaderAt, len(im.layers))
	for i, d := range im.layers {
		p, err := im.open(d)
		if err != nil {
			return nil, err
		}
		parts[i] = p
	}
	return parts, nil
}

func (im *image) release() {
	for _, p := range im.held {
		p.x.Release()
	}
}

// Size implements blob.ReaderAt.
func (p *part) Size() int64 { return p.x.Descriptor().Size }

// ReadAt implements blob.ReaderAt. What it has to fetch counts for the bandwidth.
func (p *part) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	n := min(int64(len(b)), p.Size()-off)
	if n <= 0 {
		return 0, io.EOF
	}
	if held, until := p.x.Extent(off, off+n); !held || until < off+n {
		if err := p.w.pay(ctx, int(n)); err != nil {
			return 0, err
		}
	}
	r := p.w.fill.Reader(ctx, p.x, p.src, off, n)
	defer r.Close()
	got, err := io.ReadFull(r, b[:n])
	if err == nil && n < int64(len(b)) {
		err = io.EOF
	}
	return got, err
}

// want fetches extents and returns when that is done.
func (p *part) want(ctx context.Context, extents []fill.Extent) error {
	done := make(chan error, 1)
	err := p.w.fill.Want(p.x, p.src, fill.Wanted{
		Extents: extents,
		Budget: func(g context.Context, n int) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return p.w.pay(g, n)
		},
		Done: func(err error) { done <- err },
	})
	if err != nil {
		return err
	}
	select {
	case err = <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch fetches what the trace says.
func (im *image) fetch(ctx context.Context) error {
	err := im.fetchTrace(ctx)
	if err != nil {
		return fmt.Errorf("warming %s/%s@%s: %w", im.Target.Host, im.Repository, im.Descriptor.Digest, err)
	}
	return nil
}

func (im *image) fetchTrace(ctx context.Context) error {
	// What opening as many as a manifest can name takes is no stranger's choice.
	if n := len(im.layers); n > backstore.MaxLayers {
		return fmt.Errorf("%w: it is of %d layers", errInvalid, n)
	}
	trace, err := im.open(im.trace)
	if err != nil {
		return err
	}
	// What annotations say wrong of it is looked up.
	at, _ := labels.Plan(im.trace.Annotations)
	var slot tracelayer.Span
	if at.Size <= 0 {
		found, err := tracelayer.ReadLayer(ctx, trace)
		if err != nil {
			return fmt.Errorf("%w: %w", errInvalid, err)
		}
		at, slot = tracelayer.Member{Offset: found.Plan.Off, Size: found.Plan.Size}, found.Slot
	}
	if at.Size <= 0 {
		return im.fetchSlot(ctx, trace, slot)
	}
	plan, err := readPlan(ctx, trace, at)
	if err != nil {
		return err
	}
	// Nodes that have nothing stream the data, from where they begin to the end.
	if plan.DataSize() > 0 {
		start := max(tracelayer.DataOffset(at), 0)
		if err := im.wantAll(ctx, trace, []fill.Extent{{Off: start, End: trace.Size()}}); err != nil {
			return err
		}
	}
	return im.fetchPlan(ctx, plan)
}

// readPlan reads and decodes the plan of a trace layer.
func readPlan(ctx context.Context, trace *part, at tracelayer.Member) (*tracelayer.Plan, error) {
	if at.Size > tracelayer.MaxPlan || at.Offset < 0 || at.Offset > trace.Size()-at.Size {
		return nil, fmt.Errorf("%w: a plan of %d bytes at %d", errInvalid, at.Size, at.Offset)
	}
	text := make([]byte, at.Size)
	if err := blob.ReadFull(ctx, trace, text, at.Offset); err != nil {
		return nil, fmt.Errorf("reading plan: %w", err)
	}
	if at.Digest != "" && digest.FromBytes(text) != at.Digest {
		return nil, fmt.Errorf("%w: the plan does not have its digest", errInvalid)
	}
	plan, err := tracelayer.DecodePlan(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return plan, nil
}

// fetchSlot fetches what a trace without a plan says, or a list in place of it.
func (im *image) fetchSlot(ctx context.Context, trace *part, at tracelayer.Span) error {
	text := make([]byte, at.Size)
	if err := blob.ReadFull(ctx, trace, text, at.Off); err != nil {
		return fmt.Errorf("reading trace: %w", err)
	}
	recorded, err := tracelayer.Decode(text)
	if errors.Is(err, tracelayer.ErrFormat) {
		return im.fetchList(ctx, text)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	parts, err := im.openLayers()
	if err != nil {
		return err
	}
	layers := make([]fetchplan.Layer, len(parts))
	for i, d := range im.layers {
		layers[i] = fetchplan.Layer{Digest: d.Digest, Size: d.Size, Blob: parts[i]}
	}
	plan, _, err := fetchplan.Map(ctx, layers, recorded)
	if err != nil {
		return err
	}
	return im.fetchPlan(ctx, plan)
}

// fetchPlan fetches the extents of a plan layer by layer, those first that are
// needed first. What is of no layer of the image is left out.
func (im *image) fetchPlan(ctx context.Context, plan *tracelayer.Plan) error {
	extents := make([][]fill.Extent, len(plan.Layers))
	var order []int
	for _, e := range plan.Extents {
		if extents[e.Layer] == nil {
			order = append(order, e.Layer)
		}
		extents[e.Layer] = append(extents[e.Layer], fill.Extent{Off: e.Off, End: e.Off + e.Size})
	}
	for _, i := range order {
		desc, ok := im.layer(plan.Layers[i])
		if !ok {
			im.left += size(extents[i])
			continue
		}
		p, err := im.open(desc)
		if err != nil {
			return err
		}
		if err := im.wantAll(ctx, p, merge(extents[i])); err != nil {
			return err
		}
	}
	return nil
}

// layer returns the layer of the image that a plan means: its size is what the
// image's manifest says, not the plan.
func (im *image) layer(l tracelayer.PlanLayer) (ocispec.Descriptor, bool) {
	for _, d := range im.layers {
		if d.Digest == l.Digest && d.Size == l.Size {
			return d, true
		}
	}
	return ocispec.Descriptor{}, false
}

// wantAll fetches extents of one blob, up to what may be fetched for an image.
func (im *image) wantAll(ctx context.Context, p *part, extents []fill.Extent) error {
	if im.w.cfg.MaxBytes > 0 {
		for i, e := range extents {
			if n := e.End - e.Off; im.spent+n > im.w.cfg.MaxBytes {
				im.left += size(extents[i:])
				extents = extents[:i]
				break
			} else {
				im.spent += n
			}
		}
	}
	if len(extents) == 0 {
		return nil
	}
	return p.want(ctx, extents)
}

func size(extents []fill.Extent) (n int64) {
	for _, e := range extents {
		n += e.End - e.Off
	}
	return n
}
