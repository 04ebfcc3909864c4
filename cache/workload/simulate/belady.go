package simulate

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"
)

// Belady is the name of the bound among policies: MIN (Belady 1966), which gives up
// what will be asked for last, and lets what is asked for later than all it has go
// by. With objects of one size nothing has more hits. With sizes it is a good guess
// only; Cell.Bound is then a bound that holds.
const Belady = "belady"

// never is when an object is asked for next that is not asked for again.
const never = math.MaxUint32

// future is what of a trace only who knows the future knows: 4 bytes for each access,
// and of objects with sizes 16 for each that is not the first of its object.
type future struct {
	next []uint32 // for each access, when its object is asked for next
	// Hits that there could be: cheap are ordered by size times time, short by time.
	cheap, short []interval
}

// interval is from one access to an object to the next.
type interval struct {
	id     uint32
	length uint32 // accesses
}

func newFuture(d *Decoded) *future {
	f := &future{next: nextUses(d)}
	if d.Unit {
		return f
	}
	f.cheap = make([]interval, 0, max(0, d.Accesses.Len()-d.Objects()))
	for i, a := range d.Accesses.All() {
		if f.next[i] != never {
			f.cheap = append(f.cheap, interval{a.ID, f.next[i] - uint32(i)})
		}
	}
	f.short = slices.Clone(f.cheap)
	slices.SortFunc(f.short, func(a, b interval) int { return cmp.Compare(a.length, b.length) })
	slices.SortFunc(f.cheap, func(a, b interval) int { return cmp.Compare(a.cost(d), b.cost(d)) })
	return f
}

// cost is what it takes to have the object from one access to the next.
func (v interval) cost(d *Decoded) float64 { return float64(d.Sizes[v.id]) * float64(v.length) }

// nextUses returns, for each access, when its object is asked for next.
func nextUses(d *Decoded) []uint32 {
	next := make([]uint32, d.Accesses.Len())
	last := make([]uint32, len(d.Sizes)) // plus one
	for i, a := range d.Accesses.All() {
		next[i] = never
		if at := last[a.ID]; at != 0 {
			next[at-1] = uint32(i)
		}
		last[a.ID] = uint32(i) + 1
	}
	return next
}

// use is when an object is asked for next.
type use struct {
	next uint32
	id   uint32
}

// farthest is a heap of uses, the last one on top. It may have uses that are over.
type farthest []use

func (f farthest) Len() int           { return len(f) }
func (f farthest) Less(i, j int) bool { return f[i].next > f[j].next }
func (f farthest) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *farthest) Push(x any)        { *f = append(*f, x.(use)) }
func (f *farthest) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	*f = (*f)[:last]
	return x
}

// belady runs MIN over the trace.
func belady(ctx context.Context, d *Decoded, cell *Cell, f *future) error {
	b := oracle{d: d, capacity: cell.Capacity, current: make([]uint32, len(d.Sizes)), have: make([]bool, len(d.Sizes))}
	c := newCounter(d, cell)
	for i, a := range d.Accesses.during(ctx) {
		c.add(a, b.get(a.ID, f.next[i]))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.end()
	cell.Evicted, cell.TooLarge = b.evicted, b.tooLarge
	if !d.Unit {
		t := bound(d, f, cell.Capacity)
		cell.Bound = &t
	}
	return nil
}

// oracle is a cache that knows the future.
type oracle struct {
	d        *Decoded
	capacity int64
	used     int64
	n        int
	current  []uint32 // the next use of what is there
	have     []bool
	uses     farthest
	evicted  uint64
	tooLarge uint64
}

func (b *oracle) get(id, next uint32) bool {
	hit := b.have[id]
	switch {
	case hit && next == never:
		b.drop(id) // which is as good as room
	case hit:
		b.note(id, next)
	case b.d.Sizes[id] > b.capacity:
		b.tooLarge++
	case next != never && b.room(b.d.Sizes[id], next):
		b.have[id] = true
		b.n++
		b.used += b.d.Sizes[id]
		b.note(id, next)
	}
	return hit
}

func (b *oracle) note(id, next uint32) {
	b.current[id] = next
	heap.Push(&b.uses, use{next, id})
	if len(b.uses) > 2*b.n+1024 {
		b.uses = slices.DeleteFunc(b.uses, func(u use) bool { return !b.live(u) })
		heap.Init(&b.uses)
	}
}

func (b *oracle) live(u use) bool { return b.have[u.id] && b.current[u.id] == u.next }

func (b *oracle) drop(id uint32) {
	b.have[id] = false
	b.n--
	b.used -= b.d.Sizes[id]
}

// room makes room of a size by giving up what is asked for later than next. It
// reports false, and gives up nothing, when that is not enough.
func (b *oracle) room(size int64, next uint32) bool {
	var popped []use
	free := b.capacity - b.used
	for free < size && len(b.uses) > 0 && b.uses[0].next > next {
		u := heap.Pop(&b.uses).(use)
		if b.live(u) {
			free += b.d.Sizes[u.id]
			popped = append(popped, u)
		}
	}
	if free < size {
		for _, u := range popped {
			heap.Push(&b.uses, u)
		}
		return false
	}
	for _, u := range popped {
		b.drop(u.id)
		b.evicted++
	}
	return true
}

// bound returns what no cache of a capacity can exceed, in hits and, separately, in
// hit bytes: PFOO-U (Berger, Beckmann, Harchol-Balter: Practical Bounds on Optimal
// Caching with Variable Object Sizes, 2018). To have an object from one access to
// the next costs its size times the accesses between; all accesses together can
// spend the capacity times their number, and the cheapest hits come first.
func bound(d *Decoded, f *future, capacity int64) Tally {
	t := Tally{Requests: uint64(d.Accesses.Len())}
	for _, a := range d.Accesses.All() {
		t.Bytes += d.Sizes[a.ID]
	}
	budget := float64(capacity) * float64(d.Accesses.Len())
	take := func(intervals []interval, count func(size int64)) {
		left := budget
		for _, v := range intervals {
			if left < 0 { // the one that does not fit whole counts whole: this is a bound
				return
			}
			if size := d.Sizes[v.id]; size <= capacity {
				left -= v.cost(d)
				count(size)
			}
		}
	}
	take(f.cheap, func(int64) { t.Hits++ })
	take(f.short, func(size int64) { t.HitBytes += size })
	return t
}
