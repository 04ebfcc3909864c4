package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
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
				if ask(t, c, a.ID, d.Sizes[a.ID]) {
					hits++
				}
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

// ask reads an object from the cache, or stores it, and reports whether it was there.
func ask(t *testing.T, c *cache.Cache, id uint32, size int64) bool {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(id)), Size: size}
	if found, ok := c.Find("origin", desc.Digest); ok {
		defer found.Release()
		if _, err := found.ReadAt(make([]byte, size), 0); err == nil {
			return true
		}
	}
	x, err := c.Hold("origin", desc)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release()
	if err := errors.Join(x.Store(t.Context(), cachetest.Random(int(size), uint64(id)), 0), x.MarkVerified()); err != nil {
		t.Fatal(err)
	}
	return false
}

// So it is with the garbage collection running, which makes room ahead and drops what
// is old or was not used, in the time of the trace.
func TestAgainstTheCollector(t *testing.T) {
	const limit = 4 << 20
	d := stream(4, 1500, 250, false)
	for i := range d.Sizes {
		d.Sizes[i] = d.Sizes[i]*400 + 1
		d.Kinds[i] = trace.Blob
	}
	for name, ages := range map[string]simulate.Ages{
		"room": {}, "maxUnused": {MaxUnused: 3 * time.Hour}, "maxAge": {MaxAge: 5 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			cell := run(t, d, simulate.Config{
				Policies: []string{policy.NameS3FIFO}, Sizes: []simulate.Size{{Bytes: limit}}, GC: simulate.GC{Disk: true, Layers: ages},
			}).Cells[0]
			var hits uint64
			var did gc.Stats
			synctest.Test(t, func(t *testing.T) { hits, did = collected(t, d, limit, ages) })
			observed := float64(hits) / float64(d.Accesses.Len())
			t.Logf("predicted %.4f, observed %.4f, expired %d, really %d", cell.All.Ratio(), observed, cell.Expired, did.Age+did.Unused)
			if math.Abs(observed-cell.All.Ratio()) > 0.01 {
				t.Errorf("predicted a hit ratio of %.4f, observed %.4f", cell.All.Ratio(), observed)
			}
			if (did.Age+did.Unused > 100) != (cell.Expired > 100) || did.Collections == 0 || name == "room" && did.Size == 0 {
				t.Errorf("%d should expire, and the collector did %+v", cell.Expired, did)
			}
		})
	}
}

// collected runs the cache and its collector over d and returns the hits.
func collected(t *testing.T, d *simulate.Decoded, limit int64, ages simulate.Ages) (hits uint64, did gc.Stats) {
	dir := t.TempDir()
	c, err := cache.Open(cache.Config{Dir: filepath.Join(dir, "cache"), MaxBytes: limit, Policy: policy.NameS3FIFO, WholeBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	i, err := index.Open(filepath.Join(dir, "index"), index.Config{})
	if err != nil {
		t.Fatal(err)
	}
	g := gc.New(c, i, gc.Config{MaxBytes: limit, Layers: gc.Ages(ages)})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = i.Run(ctx) })
	wg.Go(func() { _ = g.Run(ctx) })
	began := time.Now()
	for _, a := range d.Accesses.All() {
		time.Sleep(time.Until(began.Add(time.Duration(a.Time))))
		if ask(t, c, a.ID, d.Sizes[a.ID]) {
			hits++
		}
	}
	cancel()
	wg.Wait()
	if err := errors.Join(i.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	return hits, g.Stats()
}
