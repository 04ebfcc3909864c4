package simulate

import (
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Tally counts accesses.
type Tally struct {
	Requests uint64 `json:"requests"`
	Hits     uint64 `json:"hits"`
	Bytes    int64  `json:"bytes"`
	HitBytes int64  `json:"hitBytes"`
}

// Ratio returns the share of requests that were hits, 0 of none.
func (t Tally) Ratio() float64 {
	if t.Requests == 0 {
		return 0
	}
	return float64(t.Hits) / float64(t.Requests)
}

// ByteRatio returns the share of bytes that were hits, 0 of none.
func (t Tally) ByteRatio() float64 {
	if t.Bytes == 0 {
		return 0
	}
	return float64(t.HitBytes) / float64(t.Bytes)
}

func (t *Tally) add(size int64, hit bool) {
	t.Requests++
	t.Bytes += size
	if hit {
		t.Hits++
		t.HitBytes += size
	}
}

func (t *Tally) plus(o Tally) {
	t.Requests += o.Requests
	t.Hits += o.Hits
	t.Bytes += o.Bytes
	t.HitBytes += o.HitBytes
}

// Point is the hits of a part of the trace.
type Point struct {
	Time int64 `json:"time"` // when it begins: nanoseconds, or in a trace without times accesses
	Tally
}

// points is how many parts a trace is divided into, or up to twice as many.
const points = 100

// Cell is what one cache did.
type Cell struct {
	Policy   string           `json:"policy"`
	Size     Size             `json:"size"`
	Capacity int64            `json:"capacity"` // bytes, or with Unit objects
	All      Tally            `json:"all"`
	Kinds    map[string]Tally `json:"kinds"`
	Evicted  uint64           `json:"evicted"`           // for room
	Expired  uint64           `json:"expired,omitempty"` // for their age
	TooLarge uint64           `json:"tooLarge,omitempty"`
	Mean     int64            `json:"mean,omitempty"` // used of the capacity, over all requests
	// MaxUnused is that of GC, where it is not the same for all cells.
	MaxUnused time.Duration `json:"maxUnused,omitempty"`
	Error     string        `json:"error,omitempty"` // why it was not simulated, by Stream
	Over      []Point       `json:"over"`            // the trace in parts

	// Bound has, of belady with sizes, what no policy can exceed: All is then what one
	// that knows the future reaches, which may not be the best.
	Bound *Tally `json:"bound,omitempty"`
}

// counter makes the figures of a Cell.
type counter struct {
	d     *Decoded
	cell  *Cell
	kinds [8]Tally
	every int
	n     int
}

func newCounter(d *Decoded, cell *Cell) *counter {
	return &counter{d: d, cell: cell, every: max(1, (d.Accesses.Len()+points-1)/points)}
}

func (c *counter) add(a Access, hit bool) {
	size := c.d.Sizes[a.ID]
	c.kinds[c.d.Kinds[a.ID]].add(size, hit)
	if c.n == c.every*2*points { // one part of two
		over := c.cell.Over
		for i := range points {
			over[i] = over[2*i]
			over[i].plus(over[2*i+1].Tally)
		}
		c.cell.Over = over[:points]
		c.every *= 2
	}
	if c.n%c.every == 0 {
		at := a.Time
		if !c.d.Timed {
			at = int64(c.n)
		}
		c.cell.Over = append(c.cell.Over, Point{Time: at})
	}
	c.cell.Over[len(c.cell.Over)-1].add(size, hit)
	c.n++
}

// end sums up.
func (c *counter) end() {
	c.cell.Kinds = make(map[string]Tally)
	for kind, t := range c.kinds {
		if t.Requests == 0 {
			continue
		}
		c.cell.Kinds[trace.Kind(kind).String()] = t
		c.cell.All.plus(t)
	}
}
