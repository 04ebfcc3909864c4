package simulate

import (
	"context"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Ages bound how old an object gets; 0 does not.
type Ages struct {
	MaxAge    time.Duration `json:"maxAge,omitempty"`    // since it was fetched
	MaxUnused time.Duration `json:"maxUnused,omitempty"` // since it was last asked for
}

// GC is what the registry cache's garbage collection forgets beside what the policy
// gives up for room.
type GC struct {
	Layers    Ages          `json:"layers"`
	Manifests Ages          `json:"manifests"`
	Interval  time.Duration `json:"interval,omitempty"` // between collections; default 20 minutes
}

func (g GC) on() bool { return g.Layers != Ages{} || g.Manifests != Ages{} }

// store is a cache of objects: a policy, and what it is told.
type store struct {
	policy   policy.Policy[uint32]
	capacity int64
	used     int64
	sizes    []int64
	have     []bool
	evicted  uint64
	tooLarge uint64
	onEvict  func(id uint32) // nil: nothing is to be done
}

func newStore(name string, capacity int64, sizes []int64) (*store, error) {
	p, err := policy.New[uint32](name)
	if err != nil {
		return nil, err
	}
	return &store{policy: p, capacity: capacity, sizes: sizes, have: make([]bool, len(sizes))}, nil
}

// get reports whether the object is there, and takes it in if not.
func (s *store) get(id uint32) bool {
	if s.have[id] {
		s.policy.Touch(id, s.sizes[id])
		return true
	}
	s.put(id)
	return false
}

// put makes room for the object and takes it in. What is larger than the cache goes
// by it.
func (s *store) put(id uint32) {
	size := s.sizes[id]
	if size > s.capacity {
		s.tooLarge++
		return
	}
	for s.used+size > s.capacity {
		v, _, ok := s.policy.Victim()
		if !ok {
			break
		}
		s.have[v] = false
		s.used -= s.sizes[v]
		s.evicted++
		if s.onEvict != nil {
			s.onEvict(v)
		}
	}
	s.have[id] = true
	s.used += size
	s.policy.Add(id, size)
}

// remove forgets the object, which is there.
func (s *store) remove(id uint32) {
	s.policy.Remove(id)
	s.have[id] = false
	s.used -= s.sizes[id]
}

// single runs one cache over the trace.
func single(ctx context.Context, d *Decoded, cell *Cell, gc GC) error {
	s, err := newStore(cell.Policy, cell.Capacity, d.Sizes)
	if err != nil {
		return err
	}
	c := newCounter(d, cell)
	var old *aging
	if gc.on() {
		old = newAging(d, gc, s)
	}
	for _, a := range d.Accesses.during(ctx) {
		if old != nil {
			old.until(a.Time)
		}
		hit := s.get(a.ID)
		if old != nil {
			old.used(a, hit)
		}
		c.add(a, hit)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.end()
	cell.Evicted, cell.TooLarge = s.evicted, s.tooLarge
	if old != nil {
		cell.Expired = old.expired
	}
	return nil
}

// aging forgets what is too old, at each collection and not between them, as package
// gc does.
type aging struct {
	d       *Decoded
	gc      GC
	s       *store
	fetched []int64
	last    []int64
	live    []uint32 // objects that were taken in since, some given up
	listed  []bool
	next    int64
	expired uint64
}

func newAging(d *Decoded, gc GC, s *store) *aging {
	if gc.Interval <= 0 {
		gc.Interval = 20 * time.Minute
	}
	n := len(d.Sizes)
	return &aging{d: d, gc: gc, s: s, fetched: make([]int64, n), last: make([]int64, n), listed: make([]bool, n), next: int64(gc.Interval)}
}

// until makes the collections that are due up to now. Those that nothing can have
// changed for are left out.
func (a *aging) until(now int64) {
	for ; a.next <= now; a.next += int64(a.gc.Interval) {
		if len(a.live) == 0 {
			a.next += (now - a.next) / int64(a.gc.Interval) * int64(a.gc.Interval)
			continue
		}
		a.collect(a.next)
	}
}

func (a *aging) collect(now int64) {
	kept := a.live[:0]
	for _, id := range a.live {
		switch {
		case !a.s.have[id]:
			a.listed[id] = false
		case a.old(id, now):
			a.listed[id] = false
			a.s.remove(id)
			a.expired++
		default:
			kept = append(kept, id)
		}
	}
	a.live = kept
}

func (a *aging) old(id uint32, now int64) bool {
	ages := a.gc.Layers
	if a.d.Kinds[id] == trace.Manifest {
		ages = a.gc.Manifests
	}
	return ages.MaxAge > 0 && now-a.fetched[id] > int64(ages.MaxAge) ||
		ages.MaxUnused > 0 && now-a.last[id] > int64(ages.MaxUnused)
}

func (a *aging) used(x Access, hit bool) {
	a.last[x.ID] = x.Time
	if !hit {
		a.fetched[x.ID] = x.Time
	}
	if !a.listed[x.ID] && a.s.have[x.ID] {
		a.listed[x.ID] = true
		a.live = append(a.live, x.ID)
	}
}
