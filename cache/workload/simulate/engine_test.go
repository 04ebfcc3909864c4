package simulate_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// The cache itself, of the registry cache and on a disk, has the hits that the
// simulation says.
func TestAgainstTheCache(t *testing.T) {
	const limit = 4 << 20
	d := stream(3, 3000, 250, false)
	for i := range d.Sizes {
		d.Sizes[i] = d.Sizes[i]*400 + 1
	}
	for _, name := range some {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cell := run(t, d, simulate.Config{
				Policies: []string{name}, Sizes: []simulate.Size{{Bytes: limit}}, GC: simulate.GC{Disk: true, Speed: math.Inf(1)},
			}).Cells[0]
			c, err := cache.Open(cache.Config{
				Dir: filepath.Join(t.TempDir(), "cache"), MaxBytes: limit, Policy: name, WholeBlobs: true, CheckpointEvery: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var hits uint64
			for _, a := range d.Accesses.All() {
				size := d.Sizes[a.ID]
				desc := ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(a.ID)), Size: size}
				if found, ok := c.Find("origin", desc.Digest); ok {
					if _, err := found.ReadAt(make([]byte, size), 0); err == nil {
						hits++
						found.Release()
						continue
					}
					found.Release()
				}
				x, err := c.Hold("origin", desc)
				if err != nil {
					t.Fatal(err)
				}
				if err := x.Store(t.Context(), cachetest.Random(int(size), uint64(a.ID)), 0); err != nil {
					t.Fatal(err)
				}
				x.Release()
			}
			observed := float64(hits) / float64(d.Accesses.Len())
			t.Logf("predicted %.4f, observed %.4f, %d evicted, really %d", cell.All.Ratio(), observed, cell.Evicted, c.Stats().Evictions)
			if math.Abs(observed-cell.All.Ratio()) > 0.01 {
				t.Errorf("predicted a hit ratio of %.4f, observed %.4f", cell.All.Ratio(), observed)
			}
			if cell.Evicted < 100 {
				t.Errorf("only %d were evicted: this compares nothing", cell.Evicted)
			}
		})
	}
}
