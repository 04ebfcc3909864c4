// Package generate makes traces of any length that are as the recorded traffic of
// registries is (FAST'18; the figures are those measured of 725242 recorded GETs and
// of the archive's counts): the mix of requests, sizes, popularity, and, above all,
// when what was read is read again. Popularity alone gives a small cache half the
// hits that it has in truth.
//
// A trace is made of sessions that overlap in time: a client looks at a manifest and
// has everything already; or it pulls, and reads the manifest's blobs; or it goes on
// with an earlier pull; or it pushes. The blobs of a pull are those of one of a few
// popular images, or all new, or those of an image that was pulled before, whose age
// is distributed evenly in its logarithm.
//
// A pull of something new is mostly of what was pushed before.
//
// What has been given is mostly forgotten: state is 24 bytes for each of the last
// images that will be pulled again, and 4 for each repository. 20 million requests take
// some megabytes.
package generate

import (
	"container/heap"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Config says what is made. Zero values are defaults.
type Config struct {
	// Requests is how many, 0: without end.
	Requests int64
	// Seed decides everything: the same configuration gives the same trace.
	Seed uint64
	// Rate is the mean number of requests a second, up to a million. Default 3.3, that
	// of the largest zone that was recorded. Sessions that are under way are in memory:
	// some seconds of requests.
	Rate float64
	// Start is the time of the first request. Default 2017-06-20.
	Start time.Time
	// Clients is how many there are. Default 1000.
	Clients int
	// ReadOnly leaves out pushes: all requests are GETs.
	ReadOnly bool
}

// maxRate is the most that is made: the time between sessions has to be of some
// nanoseconds.
const maxRate = 1e6

// Validate returns an error if c makes no sense.
func (c Config) Validate() error {
	switch {
	case c.Requests < 0:
		return errors.New("generating: requests must not be negative")
	case !(c.Rate >= 0 && c.Rate <= maxRate):
		return fmt.Errorf("generating: rate must be a positive number up to %g", maxRate)
	case c.Clients < 0 || c.Clients > math.MaxUint32:
		return errors.New("generating: clients must be a positive number")
	}
	return nil
}

// What was measured, or follows from what was.
const (
	revalidations = 0.805 // of manifest GETs, with those that a later read of a blob hides
	pings         = 2.51  // for each manifest GET
	resumed       = 0.034 // sessions that read blobs without a manifest, for each manifest GET
	hotShare      = 0.36  // of reads of blobs: of a popular image
	newShare      = 0.414 // of reads of blobs: of something never seen
	reusable      = 0.19  // of those are read again
	otherRepo     = 0.30  // of new blobs have the content of an earlier one
	blobsMedian   = 5.4   // of a pull
	blobsSigma    = 1.07  // of their logarithm
	pushes        = 0.22  // sessions that push, for each manifest GET
)

// The same as shares of pulls: those of popular images, which have no more than
// perHot blobs and of which clients have a part, are smaller.
const (
	blobsMean = 8.5 // for the median and sigma above, and no more than mostBlobs
	hotMean   = 7.2 // of no more than perHot
	hotPulls  = hotShare / hotMean / (hotShare/hotMean + (1-hotShare)/blobsMean)
	newPulls  = newShare / blobsMean / (hotShare/hotMean + (1-hotShare)/blobsMean)
	pullMean  = 1 / (hotShare/hotMean + (1-hotShare)/blobsMean)
)

// Generator is a trace.Reader that does not end before Config.Requests.
type Generator struct {
	cfg     Config
	rng     *rand.Rand
	pending events
	next    time.Duration // when the next session begins
	mean    time.Duration // between sessions
	given   int64
	seq     uint64
	world   world
}

// New returns a generator.
func New(cfg Config) (*Generator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Rate == 0 {
		cfg.Rate = 3.3
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2017, 6, 20, 0, 0, 0, 0, time.UTC)
	}
	if cfg.Clients == 0 {
		cfg.Clients = 1000
	}
	g := &Generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15))}
	g.world = newWorld(g.rng, cfg.Seed)
	g.mean = time.Duration(perSession(cfg) / cfg.Rate * float64(time.Second))
	return g, nil
}

// perSession returns how many requests a session has on average.
func perSession(cfg Config) float64 {
	n := (1 - revalidations + resumed) * pullMean
	n += 1 + pings
	all := 1 + resumed
	if !cfg.ReadOnly {
		n += pushes * perPush
		all += pushes
	}
	return n / all
}

// event is a request at its time.
type event struct {
	seq uint64 // orders what is at one time
	r   trace.Request
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].r.Delay != e[j].r.Delay {
		return e[i].r.Delay < e[j].r.Delay
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// Next implements trace.Reader.
func (g *Generator) Next() (trace.Request, error) {
	if g.cfg.Requests > 0 && g.given == g.cfg.Requests {
		return trace.Request{}, io.EOF
	}
	for len(g.pending) == 0 || g.pending[0].r.Delay >= g.next {
		g.session(g.next)
		g.next += time.Duration(g.rng.ExpFloat64() * float64(g.mean))
	}
	r := heap.Pop(&g.pending).(event).r
	g.given++
	// To the precision of a trace file.
	r.Delay = r.Delay.Round(time.Millisecond)
	r.Time = g.cfg.Start.Add(r.Delay)
	return r, nil
}

// add puts a request into the trace.
func (g *Generator) add(r trace.Request) {
	g.seq++
	heap.Push(&g.pending, event{g.seq, r})
}
