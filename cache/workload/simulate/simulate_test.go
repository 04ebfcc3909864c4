package simulate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

var noContext = context.Background()

// stream is random requests: objects by popularity, in bursts, of mixed sizes.
func stream(seed uint64, n, objects int, unit bool) *simulate.Decoded {
	rng := rand.New(rand.NewPCG(seed, 7))
	d := &simulate.Decoded{Unit: unit, Timed: true, Nodes: 4}
	for range objects {
		size := int64(1)
		if !unit {
			size = int64(rng.ExpFloat64()*100) + rng.Int64N(3)
		}
		d.Sizes = append(d.Sizes, size)
		d.Kinds = append(d.Kinds, []trace.Kind{trace.Blob, trace.Manifest}[rng.IntN(2)])
	}
	var recent []uint32
	at := int64(0)
	for range n {
		id := uint32(float64(objects) * rng.Float64() * rng.Float64() * rng.Float64())
		if len(recent) > 0 && rng.IntN(3) == 0 {
			id = recent[rng.IntN(len(recent))]
		}
		recent = append(recent, id)
		if len(recent) > 20 {
			recent = recent[1:]
		}
		at += int64(rng.ExpFloat64() * float64(time.Minute))
		d.Accesses.Add(simulate.Access{Time: at, ID: id, Node: uint32(rng.IntN(4))})
	}
	return d
}

// full has tests take as long as it is worth once; otherwise what they check is
// checked with less of it.
var full = os.Getenv("TRIAL") == "full"

// some are policies of each way in which a cache has to deal with them: plain, with
// ghosts, told for whom room is made, and giving up what came last. With full, all.
var some = func() []string {
	if full {
		return policy.Names()
	}
	return []string{policy.NameLRU, policy.NameS3FIFO, policy.NameARC, policy.NameWTinyLFU}
}()

func run(t testing.TB, d *simulate.Decoded, cfg simulate.Config) *simulate.Report {
	t.Helper()
	r, err := simulate.Run(t.Context(), d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// slowLRU is LRU written as one would on paper: the order as a slice.
type slowLRU struct {
	capacity int64
	sizes    []int64
	order    []uint32 // the oldest first
}

func (s *slowLRU) used() (n int64) {
	for _, id := range s.order {
		n += s.sizes[id]
	}
	return n
}

func (s *slowLRU) take(id uint32) bool {
	i := slices.Index(s.order, id)
	if i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
	}
	return i >= 0
}

// put adds what is not there and returns what had to go.
func (s *slowLRU) put(id uint32) (gone []uint32) {
	if s.sizes[id] > s.capacity {
		return nil
	}
	for s.used()+s.sizes[id] > s.capacity {
		gone = append(gone, s.order[0])
		s.order = s.order[1:]
	}
	s.order = append(s.order, id)
	return gone
}

func (s *slowLRU) get(id uint32) bool {
	hit := s.take(id)
	s.put(id)
	return hit
}

func TestLRUAgainstPaper(t *testing.T) {
	for seed := range uint64(10) {
		for _, unit := range []bool{true, false} {
			d := stream(seed, 3000, 200, unit)
			for _, share := range []float64{0.02, 0.2, 0.7} {
				cell := run(t, d, simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Share: share}}}).Cells[0]
				slow := slowLRU{capacity: cell.Capacity, sizes: d.Sizes}
				var want simulate.Tally
				for _, a := range d.Accesses.All() {
					want.Requests++
					want.Bytes += d.Sizes[a.ID]
					if slow.get(a.ID) {
						want.Hits++
						want.HitBytes += d.Sizes[a.ID]
					}
				}
				if cell.All != want {
					t.Errorf("seed %d, unit %t, %g: %+v, want %+v", seed, unit, share, cell.All, want)
				}
			}
		}
	}
}

// Two levels as on paper.
func TestLevelsAgainstPaper(t *testing.T) {
	for seed := range uint64(10) {
		for _, direct := range []int64{0, 150} {
			for _, warm := range []bool{false, true} {
				d := stream(seed, 3000, 200, false)
				cell := run(t, d, simulate.Config{Levels: []simulate.Levels{{
					Memory: simulate.Size{Share: 0.03}, Disk: simulate.Size{Share: 0.2}, Direct: direct, Warm: warm,
				}}}).Levels[0]
				memory, disk := slowLRU{capacity: cell.Memories, sizes: d.Sizes}, slowLRU{capacity: cell.Disks, sizes: d.Sizes}
				limit := cell.Memories + 1
				if direct > 0 {
					limit = min(direct, cell.Memories)
				}
				var inMemory, onDisk, requests, lookups uint64
				memoryFull, diskFull := !warm, !warm
				for _, a := range d.Accesses.All() {
					m, dk := memoryFull, diskFull
					var hitMemory, hitDisk bool
					spill := func(gone []uint32) {
						for _, id := range gone {
							memoryFull = true
							if len(disk.put(id)) > 0 {
								diskFull = true
							}
						}
					}
					switch {
					case memory.take(a.ID):
						hitMemory = true
						spill(memory.put(a.ID))
					case d.Sizes[a.ID] >= limit:
						hitDisk = disk.take(a.ID)
						if len(disk.put(a.ID)) > 0 {
							diskFull = true
						}
					default:
						hitDisk = disk.take(a.ID)
						spill(memory.put(a.ID))
					}
					if m {
						requests++
						if hitMemory {
							inMemory++
						}
					}
					if dk && !hitMemory {
						lookups++
						if hitDisk {
							onDisk++
						}
					}
				}
				got := [4]uint64{cell.MemoryHits.Requests, cell.MemoryHits.Hits, cell.DiskHits.Requests, cell.DiskHits.Hits}
				if want := [4]uint64{requests, inMemory, lookups, onDisk}; got != want {
					t.Errorf("seed %d, direct %d, warm %t: %v, want %v", seed, direct, warm, got, want)
				}
			}
		}
	}
}

// best returns the most hits that any cache can have: all choices are tried.
func best(d *simulate.Decoded, capacity int64) (hits, bytes int64) {
	type state struct {
		i    int
		have uint32
	}
	var accesses []simulate.Access
	for _, a := range d.Accesses.All() {
		accesses = append(accesses, a)
	}
	for byBytes, out := range map[bool]*int64{false: &hits, true: &bytes} {
		known := map[state]int64{}
		var most func(i int, have uint32) int64
		most = func(i int, have uint32) int64 {
			if i == len(accesses) {
				return 0
			}
			if v, ok := known[state{i, have}]; ok {
				return v
			}
			id := accesses[i].ID
			gain := int64(0)
			if have&(1<<id) != 0 {
				gain = 1
				if byBytes {
					gain = d.Sizes[id]
				}
			}
			// After the access any part of what was there, with or without it, may be kept.
			all := have | 1<<id
			v := int64(0)
			for keep := all; ; keep = (keep - 1) & all {
				n := int64(0)
				for k, size := range d.Sizes {
					if keep&(1<<k) != 0 {
						n += size
					}
				}
				if n <= capacity {
					v = max(v, most(i+1, keep))
				}
				if keep == 0 {
					break
				}
			}
			known[state{i, have}] = gain + v
			return gain + v
		}
		*out = most(0, 0)
	}
	return hits, bytes
}

// Belady has the most hits that there can be with equal sizes; with others, no more
// than that, and the bound not less.
func TestBeladyIsBest(t *testing.T) {
	for seed := range uint64(30) {
		for _, unit := range []bool{true, false} {
			d := stream(seed, 40, 6, unit)
			capacity := int64(2)
			size := simulate.Size{Objects: 2}
			if !unit {
				capacity = max(1, d.Bytes()/3)
				size = simulate.Size{Bytes: capacity}
			}
			cells := run(t, d, simulate.Config{Policies: []string{simulate.Belady}, Sizes: []simulate.Size{size, size}}).Cells
			cell := cells[0]
			if !unit && *cells[1].Bound != *cell.Bound {
				t.Errorf("seed %d: the bounds of one size are %+v and %+v", seed, cell.Bound, cells[1].Bound)
			}
			hits, bytes := best(d, capacity)
			if unit && int64(cell.All.Hits) != hits {
				t.Errorf("seed %d: %d hits, there can be %d", seed, cell.All.Hits, hits)
			}
			if !unit && (int64(cell.All.Hits) > hits || int64(cell.Bound.Hits) < hits || cell.Bound.HitBytes < bytes) {
				t.Errorf("seed %d: %d hits, there can be %d and %d bytes, the bound is %+v", seed, cell.All.Hits, hits, bytes, cell.Bound)
			}
		}
	}
}

// No policy beats the bound, and belady none with equal sizes.
func TestNothingBeatsTheBound(t *testing.T) {
	seeds := uint64(2)
	if full {
		seeds = 20
	}
	for seed := range seeds {
		for _, unit := range []bool{true, false} {
			d := stream(seed, 5000, 300, unit)
			for _, share := range []float64{0.02, 0.1, 0.5} {
				r := run(t, d, simulate.Config{Policies: append(policy.Names(), simulate.Belady), Sizes: []simulate.Size{{Share: share}}})
				top := r.Cells[len(r.Cells)-1]
				limit := top.All
				if !unit {
					limit = *top.Bound
				}
				for _, c := range r.Cells {
					if c.All.Hits > limit.Hits || c.All.HitBytes > limit.HitBytes {
						t.Errorf("seed %d, unit %t, %g: %s has %+v, the bound is %+v", seed, unit, share, c.Policy, c.All, limit)
					}
				}
			}
		}
	}
}

// What is too old goes at a collection and not before.
func TestAges(t *testing.T) {
	minutes := func(at ...float64) *simulate.Decoded {
		d := &simulate.Decoded{Sizes: []int64{1}, Kinds: []trace.Kind{trace.Blob}, Timed: true}
		for _, m := range at {
			d.Accesses.Add(simulate.Access{Time: int64(m * float64(time.Minute))})
		}
		return d
	}
	for _, c := range []struct {
		gc   simulate.GC
		at   []float64
		hits uint64
	}{
		{simulate.GC{}, []float64{0, 1000}, 1},
		{simulate.GC{Layers: simulate.Ages{MaxAge: 30 * time.Minute}}, []float64{0, 10, 39, 41}, 2}, // collected at 40
		{simulate.GC{Layers: simulate.Ages{MaxUnused: 30 * time.Minute}}, []float64{0, 29, 59, 99, 139, 190}, 4},
		{simulate.GC{Manifests: simulate.Ages{MaxAge: time.Minute}}, []float64{0, 1000}, 1}, // it is a blob
		{simulate.GC{Layers: simulate.Ages{MaxAge: 30 * time.Minute}, Interval: time.Minute}, []float64{0, 30.5, 31.5}, 1},
	} {
		r := run(t, minutes(c.at...), simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Share: 1}}, GC: c.gc})
		if got := r.Cells[0].All.Hits; got != c.hits {
			t.Errorf("%+v, asked for at %v: %d hits, want %d", c.gc, c.at, got, c.hits)
		}
	}
}

// What nodes have does not get to the shared cache.
func TestPerNode(t *testing.T) {
	d := stream(1, 5000, 300, false)
	r := run(t, d, simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Share: 0.3}}, PerNode: []simulate.Size{{Share: 0.05}, {Bytes: 1}}})
	for _, n := range r.PerNode {
		if n.All.Requests-n.All.Hits != n.Shared[0].All.Requests || n.All.Bytes-n.All.HitBytes != n.Shared[0].All.Bytes {
			t.Errorf("nodes miss %+v, the shared cache sees %+v", n.All, n.Shared[0].All)
		}
	}
	// Each as if it were alone.
	var want uint64
	for node := range uint32(4) {
		slow := slowLRU{capacity: r.PerNode[0].Capacity, sizes: d.Sizes}
		for _, a := range d.Accesses.All() {
			if a.Node == node && slow.get(a.ID) {
				want++
			}
		}
	}
	if got := r.PerNode[0].All.Hits; got != want {
		t.Errorf("%d hits on nodes, want %d", got, want)
	}
}

func TestDecode(t *testing.T) {
	get := func(uri string, size int64, status int) trace.Request {
		return trace.Request{Method: "GET", URI: uri, Size: size, Status: status, Client: "c"}
	}
	requests := []trace.Request{
		get("v2", 2, 200), get("v2/a/blobs/x", 10, 200), get("v2/b/blobs/x", 12, 206), get("v2/a/manifests/t", 5, 200),
		get("v2/b/manifests/t", 5, 200), get("v2/a/blobs/y", 10, 404), {Method: "PUT", URI: "v2/a/blobs/z", Size: 1}, get("v2/a/tags/list", 5, 200),
	}
	for _, c := range []struct {
		scope simulate.Scope
		want  string
	}{
		{simulate.Scope{}, "[12 5 5] 4"},
		{simulate.Scope{Key: simulate.ByURI}, "[10 12 5 5] 4"},
		{simulate.Scope{Unit: true}, "[1 1 1] 4"},
		{simulate.Scope{Kinds: []trace.Kind{trace.Manifest}}, "[5 5] 2"},
		{simulate.Scope{Writes: true}, "[12 5 5 1] 5"},
	} {
		d, err := simulate.Decode(t.Context(), trace.Of(requests...), c.scope)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(d.Sizes, d.Accesses.Len()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.scope, got, c.want)
		}
	}
	part := trace.Request{Method: "GET", URI: "v2/a/blobs/x", Size: 5, Off: 95, Len: 5, Status: 206}
	d, err := simulate.Decode(t.Context(), trace.Of(requests[1], part, part), simulate.Scope{})
	if err != nil || d.Ranged != 2 || d.Sizes[0] != 100 || run(t, d, simulate.Config{}).Ranged != 2 {
		t.Errorf("ranges: %+v, %v", d, err)
	}
	if _, err := simulate.Decode(t.Context(), trace.Of(get("v2/a/blobs/x", -1, 0)), simulate.Scope{}); err == nil {
		t.Error("no sizes were no error")
	}
	if _, err := simulate.Decode(t.Context(), trace.Of(), simulate.Scope{}); err == nil {
		t.Error("nothing was no error")
	}
}
