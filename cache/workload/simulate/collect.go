package simulate

import (
	"errors"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Ages bound how old an object gets; 0 does not.
type Ages struct {
	MaxAge    time.Duration `json:"maxAge,omitempty"`    // since it was fetched
	MaxUnused time.Duration `json:"maxUnused,omitempty"` // since it was last asked for
}

// GC is what the registry cache's garbage collection does beside what is given up
// for room when something comes.
type GC struct {
	Layers    Ages          `json:"layers"`
	Manifests Ages          `json:"manifests"`
	Interval  time.Duration `json:"interval,omitempty"` // between collections; default 20 minutes
	// Disk counts the space that the registry cache charges for an object, and has it
	// make room as the registry cache does: below its limit, ahead of time, in
	// collections and whenever it looks in between.
	Disk bool `json:"disk,omitempty"`
	// Speed is that of a replay that is to be predicted: so much of the trace's time
	// passes in a second of the cache's, which Ages and Interval are in. Default 1.
	Speed float64 `json:"speed,omitempty"`
}

func (g GC) ages() bool { return g.Layers != Ages{} || g.Manifests != Ages{} }

func (g GC) on() bool { return g.ages() || g.Disk }

// check says whether the settings make sense for a trace.
func (g GC) check(unit, timed bool) error {
	switch {
	case g.Disk && unit:
		return errors.New("disk space cannot be simulated of objects without sizes (unit)")
	case g.ages() && !timed:
		return errors.New("maximum ages cannot be simulated with a trace that has no times")
	}
	return nil
}

// What package gc does about space: it looks every diskLook, and when less than a
// tenth of what is above the low mark is free it goes down to that.
const (
	diskLook = int64(10 * time.Second)
	lowMark  = 0.9
)

// collector forgets what is too old, at each collection and not between them, as
// package gc does.
type collector struct {
	d       *Decoded
	gc      GC
	s       *store
	fetched []int64  // of each object, with ages only
	last    []int64  // time of use, likewise
	live    []uint32 // objects that were taken in since, some given up
	listed  []bool
	next    int64 // collection
	look    int64 // for space
	expired uint64
}

func newCollector(d *Decoded, gc GC, s *store) *collector {
	if gc.Interval <= 0 {
		gc.Interval = 20 * time.Minute
	}
	if gc.Speed <= 0 {
		gc.Speed = 1
	}
	c := &collector{d: d, gc: gc, s: s, next: int64(gc.Interval), look: diskLook}
	c.fit()
	return c
}

// fit makes room for objects that are new in the trace.
func (c *collector) fit() {
	if !c.gc.ages() {
		return
	}
	if more := len(c.d.Sizes) - len(c.last); more > 0 {
		c.fetched = append(c.fetched, make([]int64, more)...)
		c.last = append(c.last, make([]int64, more)...)
		c.listed = append(c.listed, make([]bool, more)...)
	}
}

// until makes the collections that are due up to now. Those that nothing can have
// changed for are left out.
func (c *collector) until(now int64) {
	now = c.time(now)
	if c.gc.Disk && c.look <= now {
		if low := int64(float64(c.s.capacity) * lowMark); c.s.used > c.s.capacity-(c.s.capacity-low)/10 {
			c.s.evictTo(low)
		}
		c.look = now - now%diskLook + diskLook
	}
	for ; c.next <= now; c.next += int64(c.gc.Interval) {
		if len(c.live) == 0 {
			c.next += (now - c.next) / int64(c.gc.Interval) * int64(c.gc.Interval)
			continue
		}
		c.collect(c.next)
	}
}

func (c *collector) collect(now int64) {
	kept := c.live[:0]
	for _, id := range c.live {
		switch {
		case !c.s.have[id]:
			c.listed[id] = false
		case c.old(id, now):
			c.listed[id] = false
			c.s.remove(id, c.d.Sizes[id])
			c.expired++
		default:
			kept = append(kept, id)
		}
	}
	c.live = kept
}

func (c *collector) old(id uint32, now int64) bool {
	ages := c.gc.Layers
	if c.d.Kinds[id] == trace.Manifest {
		ages = c.gc.Manifests
	}
	return ages.MaxAge > 0 && now-c.fetched[id] > int64(ages.MaxAge) ||
		ages.MaxUnused > 0 && now-c.last[id] > int64(ages.MaxUnused)
}

// time returns the cache's time of one in the trace.
func (c *collector) time(at int64) int64 { return int64(float64(at) / c.gc.Speed) }

// used is told of each access after it.
func (c *collector) used(a Access, hit bool) {
	if !c.gc.ages() {
		return
	}
	c.last[a.ID] = c.time(a.Time)
	if !hit {
		c.fetched[a.ID] = c.last[a.ID]
	}
	if !c.listed[a.ID] && c.s.have[a.ID] {
		c.listed[a.ID] = true
		c.live = append(c.live, a.ID)
	}
}
