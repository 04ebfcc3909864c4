package simulate_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// The twelve figures of the original's cache simulation are those of LRU on paper,
// counted from the first eviction of a level on.
func TestOriginalCache(t *testing.T) {
	const mib = 1 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := make([]int64, 400)
	for i := range sizes {
		sizes[i] = 1 + int64(rng.ExpFloat64()*40*mib)
	}
	var requests []trace.Request
	var ids []int
	for i := range 8000 {
		id := int(float64(len(sizes)) * rng.Float64() * rng.Float64())
		r := trace.Request{Delay: time.Duration(i) * time.Second, Method: "GET", URI: fmt.Sprintf("v2/r/%d/blobs/l%d", id%3, id), Size: sizes[id], Status: 404}
		switch rng.IntN(10) {
		case 0:
			r.Method, r.URI = "PUT", fmt.Sprintf("v2/r/%d/blobs/uploads/l%d", id%2, id)
		case 1:
			r.URI = "v2/r/manifests/t"
		}
		requests = append(requests, r)
		if r.URI != "v2/r/manifests/t" {
			ids = append(ids, id)
		}
	}
	want := []string{"running cache simulation"}
	for n := range 9 {
		want = append(want, fmt.Sprintf("%d0%% done", n+1))
	}
	for _, times := range []int64{10, 15, 20} {
		memory, disk := slowLRU{capacity: 256 * mib, sizes: sizes}, slowLRU{capacity: 256 * mib * times, sizes: sizes}
		var hits, misses, both, neither int
		memoryFull, diskFull := false, false
		for _, id := range ids {
			m, d := memoryFull, diskFull
			inMemory := memory.take(uint32(id))
			onDisk := !inMemory && disk.take(uint32(id))
			if !inMemory && sizes[id] >= 100*mib {
				diskFull = len(disk.put(uint32(id))) > 0 || diskFull
			} else {
				for _, gone := range memory.put(uint32(id)) {
					memoryFull = true
					diskFull = len(disk.put(gone)) > 0 || diskFull
				}
			}
			switch {
			case m && inMemory:
				hits++
			case m:
				misses++
			}
			switch {
			case d && (inMemory || onDisk):
				both++
			case d:
				neither++
			}
		}
		want = append(want, fmt.Sprintf("0 %d lmu hits: %d", times, hits), fmt.Sprintf("0 %d lmu misses: %d", times, misses),
			fmt.Sprintf("0 %d h hits: %d", times, both), fmt.Sprintf("0 %d h misses: %d", times, neither))
		if neither == 0 || hits == 0 {
			t.Errorf("%d times as much disk: nothing is counted", times)
		}
	}
	var out strings.Builder
	if err := simulate.OriginalCache(t.Context(), trace.Of(requests...), map[string]any{"cache_size": 0.25}, &out); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestOriginalCacheArguments(t *testing.T) {
	for _, c := range []struct {
		size any
		ok   bool
	}{{nil, false}, {"1", false}, {0, false}, {-1.0, false}, {1, true}, {int64(1), true}, {uint64(2), true}, {0.5, true}} {
		var out strings.Builder
		err := simulate.OriginalCache(t.Context(), trace.Of(), map[string]any{"cache_size": c.size}, &out)
		if (err == nil) != c.ok {
			t.Errorf("cache_size %v: %v", c.size, err)
		}
	}
}
