package prefetch_test

import (
	"context"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/tracelayer"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// slowly is a source whose replays of large plans go on until one of a small plan
// came.
type slowly struct {
	*chain.Chain
	small chan struct{}

	mu        sync.Mutex
	large     int // under way
	mostLarge int
	plans     int // large ones, so far
}

func (s *slowly) Replay(ctx context.Context, _ string, _ backstore.TraceLayer, plan *tracelayer.Plan, _ []ocispec.Descriptor) (replay.Stats, error) {
	if len(plan.Extents) == 1 {
		close(s.small)
		return replay.Stats{}, nil
	}
	s.mu.Lock()
	s.large++
	s.plans++
	s.mostLarge = max(s.mostLarge, s.large)
	s.mu.Unlock()
	select {
	case <-s.small:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.large--
	return replay.Stats{}, ctx.Err()
}

// The plans of all images that are worked on have a bound together; a small one does
// not wait for that.
func TestPlanRoom(t *testing.T) {
	w := newWorld(t)
	img := w.image()
	plan := &tracelayer.Plan{Layers: []tracelayer.PlanLayer{{Digest: img.Layers[0].Digest, Size: tracelayer.MaxExtents}}}
	encoded := func(n int) []byte {
		plan.Extents = nil
		for off := range int64(n) {
			plan.Extents = append(plan.Extents, tracelayer.Extent{Off: off, Size: 1})
		}
		b, err := plan.Encode()
		w.must(err)
		return b
	}
	large := encoded(tracelayer.MaxExtents)
	if 2*len(large) < tracelayer.MaxPlan {
		t.Fatalf("%d bytes are not large", len(large))
	}
	source := &slowly{Chain: w.chain, small: make(chan struct{})}
	p := w.runSource(source, prefetch.Config{Parallel: 4})
	for _, plan := range [][]byte{large, large, large, encoded(1)} {
		img.Trace = &backstore.TraceLayer{Dir: w.unpack(tracelayer.Contents{Slot: []byte("/none\n"), Plan: plan})}
		p.Prefetch(img)
	}
	for range 4 {
		if o := w.next(); o.Outcome != prefetch.Replayed || o.err != nil {
			t.Errorf("%+v", o)
		}
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.plans != 3 || source.mostLarge != 1 {
		t.Errorf("%d large plans, %d of them at a time", source.plans, source.mostLarge)
	}
}
