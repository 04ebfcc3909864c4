package fetchplan

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/tarblob"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/chunks"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Layer is a layer of the image, without those that are trace layers.
type Layer struct {
	// Digest and Size (bytes) are those of the blob in the registry.
	Digest digest.Digest
	Size   int64
	// Blob is that blob. Who builds a plan reads parts of it twice: it should
	// be local, or cached.
	Blob blob.ReaderAt
	// Table says where in the blob its chunk table lies; zero if it has none.
	// A detached table counts as none, because it is in no layer.
	Table chunks.Ref
}

// parallelOpens is how many layers are opened at once.
const parallelOpens = 32

// rawUnit is what reads of a layer that is not compressed are multiples of, in
// bytes: a sector.
const rawUnit = 512

// opened is an opened layer and what of it is in the plan already.
type opened struct {
	desc   backstore.Description
	stream blob.ReaderAt
	unit   int64 // bytes of the stream that are read together
	read   marks // units
	log    *logged
	top    blob.Blob // log, verified
	header []span    // what opening read of the blob, in pieces
}

// check reports layers that no plan can be of.
func check(layers []Layer) error {
	if len(layers) > backstore.MaxLayers {
		return fmt.Errorf("%d layers are more than the %d of an image", len(layers), backstore.MaxLayers)
	}
	for i, l := range layers {
		if err := l.Digest.Validate(); err != nil {
			return fmt.Errorf("layer %d: digest %q: %w", i, l.Digest, err)
		}
		if l.Blob.Size() != l.Size {
			return fmt.Errorf("layer %d: blob has %d bytes, not %d", i, l.Blob.Size(), l.Size)
		}
	}
	return nil
}

// openAll opens layers with open, equal ones once, and returns the plan without
// extents. Where one layer is twice in an image, both are the first one.
func openAll(ctx context.Context, layers []Layer, open func(context.Context, Layer) (*opened, error)) ([]*opened, *tracelayer.Plan, error) {
	if err := check(layers); err != nil {
		return nil, nil, err
	}
	all := make([]*opened, len(layers))
	plan := &tracelayer.Plan{}
	first := firstOf(layers)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelOpens)
	for i, l := range layers {
		plan.Layers = append(plan.Layers, tracelayer.PlanLayer{Digest: l.Digest, Size: l.Size})
		if first[i] != i {
			continue
		}
		g.Go(func() (err error) {
			if all[i], err = open(ctx, l); err != nil {
				return fmt.Errorf("opening layer %d (%s): %w", i, l.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i := range all {
		all[i] = all[first[i]]
	}
	return all, plan, nil
}

// firstOf returns for each layer the index of the first that equals it.
func firstOf(layers []Layer) []int {
	type key struct {
		digest digest.Digest
		table  chunks.Ref
	}
	seen := make(map[key]int)
	first := make([]int, len(layers))
	for i, l := range layers {
		k := key{l.Digest, l.Table}
		if _, ok := seen[k]; !ok {
			seen[k] = i
		}
		first[i] = seen[k]
	}
	return first
}

// openBlob opens the layer blob r. It reads no more than its start, its jump
// table and its LSMT index.
func openBlob(ctx context.Context, r blob.ReaderAt) (*opened, error) {
	d, err := backstore.Describe(ctx, r)
	if err != nil {
		return nil, err
	}
	d.Layer = nil // its index can be large and has done its service
	o := &opened{desc: d, unit: rawUnit}
	if d.ZFile != nil {
		o.stream, o.unit = d.ZFile, int64(d.ZFile.BlockSize())
	} else {
		o.stream = tarblob.Payload(r, d.Payload)
	}
	o.read = newMarks((o.stream.Size() + o.unit - 1) / o.unit)
	return o, nil
}

// fits reports whether r is a read that o can be asked for.
func (o *opened) fits(r tracelayer.Record) bool {
	size := o.stream.Size()
	return r.Op == tracelayer.Read && r.Off >= 0 && r.Count > 0 && r.Off < size && r.Count <= size-r.Off
}

// unread yields the parts of the record r, widened to units, that were not
// yielded before.
func (o *opened) unread(r tracelayer.Record) func(yield func(span) bool) {
	return func(yield func(span) bool) {
		for from, to := range o.read.take(r.Off/o.unit, (r.Off+r.Count-1)/o.unit+1) {
			if !yield(span{from * o.unit, min(to*o.unit, o.stream.Size())}) {
				return
			}
		}
	}
}

// logged is a blob that notes what is read of it.
type logged struct {
	blob.ReaderAt
	desc ocispec.Descriptor

	mu    sync.Mutex
	reads []span
}

// Descriptor implements blob.Blob.
func (l *logged) Descriptor() ocispec.Descriptor { return l.desc }

// ReadAt implements blob.ReaderAt.
func (l *logged) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := l.ReaderAt.ReadAt(ctx, p, off)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 {
		l.reads = append(l.reads, span{off, off + int64(n)})
	}
	return n, err
}

// take returns what was read since the last call.
func (l *logged) take() []span {
	l.mu.Lock()
	defer l.mu.Unlock()
	reads := l.reads
	l.reads = nil
	return reads
}
