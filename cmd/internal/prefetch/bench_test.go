package prefetch_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/tracelayer"
)

// BenchmarkWarm is what an image costs that has all that its trace says: 4096 ranges
// of 8 KiB.
func BenchmarkWarm(b *testing.B) {
	w := newWorld(b)
	layer := make([]byte, 64<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(layer)
	desc := w.put(layer)
	img := backstore.Image{Ref: w.ref, Layers: []backstore.Layer{{Digest: desc.Digest, Size: desc.Size}}}
	plan := &tracelayer.Plan{Layers: []tracelayer.PlanLayer{{Digest: desc.Digest, Size: desc.Size}}}
	for i := range 4096 {
		e := tracelayer.Extent{Off: int64(i) * 16 << 10, Size: 8 << 10}
		e.Sum = sha256.Sum256(layer[e.Off:][:e.Size])
		plan.Extents = append(plan.Extents, e)
	}
	encoded, err := plan.Encode()
	w.must(err)
	img.Trace = w.trace(tracelayer.Contents{Slot: []byte("/none\n"), Plan: encoded})
	if img.Trace.Plan.Digest != digest.FromBytes(encoded) {
		b.Fatal("the plan is another one")
	}
	p := w.run(nil)
	p.Prefetch(img)
	if o := w.next(); o.Outcome != prefetch.Replayed || o.stats.Prefetched.Extents != 4096 {
		b.Fatalf("%+v", o)
	}
	w.idle(p)
	b.ReportAllocs()
	for b.Loop() {
		p.Prefetch(img)
		if o := w.next(); o.stats.Present.Extents != 4096 {
			b.Fatalf("%+v", o)
		}
		w.idle(p)
	}
}
