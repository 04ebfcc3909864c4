package simulate

import (
	"container/heap"
	"context"
	"math"
	"slices"
)

// stackConfig says which objects a curve is made from.
type stackConfig struct {
	name    string
	rate    float64 // of the objects, by a hash of their number
	objects int     // at most so many, the rate goes down for it; 0: no limit
}

// stack makes the miss-ratio curve of LRU: an access hits in every cache that has
// room for the object and for all that was asked for since it was last asked for
// (Mattson et al. 1970). What is larger than a cache takes its room here, and goes by
// it in a Cell: a curve may have more misses at sizes below the largest objects. With a rate below 1 it is an estimate from the objects whose
// hash is low: SHARDS (Waldspurger et al., FAST 2015), with its adjustment for the
// accesses that a sample has too few or too many of.
func stack(ctx context.Context, d *Decoded, cfg stackConfig, n int) (Curve, error) {
	s := &sampler{cfg: cfg, limit: threshold(cfg.rate), rate: cfg.rate}
	s.grid = grid(d.Bytes(), n)
	s.hits, s.bytes = make([]float64, n+1), make([]float64, n+1)
	s.at = make([]uint32, len(d.Sizes))
	s.order = newOrder(d.Sizes)
	var total Tally
	for _, a := range d.Accesses.during(ctx) {
		size := d.Sizes[a.ID]
		total.add(size, false)
		if h := mix(a.ID); h <= s.limit {
			s.add(a.ID, h, size)
		}
	}
	return s.curve(total), ctx.Err()
}

// threshold returns up to which hash objects are in a sample of a rate.
func threshold(rate float64) uint64 {
	if rate >= 1 {
		return math.MaxUint64
	}
	return uint64(rate * math.MaxUint64)
}

// mix is the finalizer of SplitMix64.
func mix(id uint32) uint64 {
	h := (uint64(id) + 1) * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// grid returns n capacities from a ten-thousandth of all to all, in equal ratios.
func grid(all int64, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = max(1, int64(float64(all)*math.Pow(10, -4*float64(n-1-i)/float64(max(1, n-1)))))
	}
	out[n-1] = all
	return out
}

// sampler collects at which capacity the accesses of a sample would hit.
type sampler struct {
	cfg   stackConfig
	limit uint64  // hashes up to it are in the sample
	rate  float64 // of the sample
	grid  []int64
	// hits and bytes are those of accesses that need the capacity of the point of the
	// grid, and at the end those that never hit. Each counts by the rate at its time
	// over the rate now.
	hits, bytes []float64
	order       *order
	at          []uint32 // position in order plus one of objects seen
	sample      sample   // with cfg.objects
	members     int
}

func (s *sampler) add(id uint32, hash uint64, size int64) {
	bucket := len(s.grid)
	if s.at[id] != 0 {
		need := size + int64(float64(s.order.since(s.at[id]-1))/s.rate)
		bucket, _ = slices.BinarySearch(s.grid, need)
		s.order.remove(s.at[id] - 1)
	} else {
		s.members++
		if s.cfg.objects > 0 {
			heap.Push(&s.sample, member{hash, id})
		}
	}
	s.hits[bucket]++
	s.bytes[bucket] += float64(size)
	s.order.push(id, s.at)
	for s.cfg.objects > 0 && len(s.sample) > s.cfg.objects {
		s.shrink()
	}
}

// shrink takes the object with the highest hash out of the sample: the rate goes
// down to what remains.
func (s *sampler) shrink() {
	m := heap.Pop(&s.sample).(member)
	s.order.remove(s.at[m.id] - 1)
	s.at[m.id] = 0
	s.limit = m.hash - 1
	rate := float64(s.limit) / math.MaxUint64
	for i := range s.hits {
		s.hits[i] *= rate / s.rate
		s.bytes[i] *= rate / s.rate
	}
	s.rate = rate
}

func (s *sampler) curve(total Tally) Curve {
	c := Curve{Name: s.cfg.name, Rate: s.rate, Objects: s.members}
	if s.cfg.objects > 0 {
		c.Objects = len(s.sample)
	}
	if s.members == 0 {
		return c // of which nothing can be said
	}
	sum := func(v []float64) (n float64) {
		for _, x := range v {
			n += x
		}
		return n
	}
	requests, bytes := float64(total.Requests)*s.rate, float64(total.Bytes)*s.rate
	// What the sample has too few of are objects that are asked for all the time.
	hits, hitBytes := requests-sum(s.hits), bytes-sum(s.bytes)
	for i, capacity := range s.grid {
		hits += s.hits[i]
		hitBytes += s.bytes[i]
		c.Points = append(c.Points, CurvePoint{
			Capacity: capacity, Miss: ratio(1-hits/requests, requests), ByteMiss: ratio(1-hitBytes/bytes, bytes),
		})
	}
	return c
}

// ratio keeps v between 0 and 1; of nothing it is 0.
func ratio(v, of float64) float64 {
	if of == 0 {
		return 0
	}
	return min(1, max(0, v))
}

// member is an object of a sample.
type member struct {
	hash uint64
	id   uint32
}

// sample is a heap of members, the highest hash on top.
type sample []member

func (s sample) Len() int           { return len(s) }
func (s sample) Less(i, j int) bool { return s[i].hash > s[j].hash }
func (s sample) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *sample) Push(x any)        { *s = append(*s, x.(member)) }
func (s *sample) Pop() any {
	last := len(*s) - 1
	m := (*s)[last]
	*s = (*s)[:last]
	return m
}

// order is the objects by when they were last asked for, and the sums of the sizes
// of all after a position, in logarithmic time (a Fenwick tree). Positions are used
// once; when they are used up those in use are numbered anew, so that it takes
// memory by the number of objects and not of accesses.
type order struct {
	sizes []int64
	tree  []int64  // 1-based
	ids   []uint32 // by position, plus one; 0: not in use
	next  uint32   // position
	live  int
	total int64
}

func newOrder(sizes []int64) *order {
	const least = 1024
	return &order{sizes: sizes, tree: make([]int64, least+1), ids: make([]uint32, least)}
}

func (o *order) change(pos uint32, by int64) {
	o.total += by
	for i := int(pos) + 1; i < len(o.tree); i += i & -i {
		o.tree[i] += by
	}
}

// since returns the sizes of what is after a position.
func (o *order) since(pos uint32) int64 {
	n := o.total
	for i := int(pos) + 1; i > 0; i -= i & -i {
		n -= o.tree[i]
	}
	return n
}

func (o *order) remove(pos uint32) {
	o.change(pos, -o.sizes[o.ids[pos]-1])
	o.ids[pos] = 0
	o.live--
}

// push puts an object, which is not there, at the end. Positions plus one are
// written to at.
func (o *order) push(id uint32, at []uint32) {
	if int(o.next) == len(o.ids) {
		o.renumber(at)
	}
	o.ids[o.next] = id + 1
	o.change(o.next, o.sizes[id])
	o.next++
	at[id] = o.next
	o.live++
}

func (o *order) renumber(at []uint32) {
	ids := slices.DeleteFunc(o.ids, func(id uint32) bool { return id == 0 })
	n := max(2*len(ids), 1024)
	o.ids = append(make([]uint32, 0, n), ids...)[:n]
	o.tree = make([]int64, n+1)
	o.next, o.total = 0, 0
	for pos, id := range o.ids[:len(ids)] {
		at[id-1] = uint32(pos) + 1
		o.change(uint32(pos), o.sizes[id-1])
	}
	o.next = uint32(len(ids))
}
