package report

import (
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Recorder counts results. Its methods may be called in parallel. It takes some 400 KB
// for each group of requests that ended alike and up to 20 MB for what went on over
// time, however long the run.
type Recorder struct {
	mu     sync.Mutex
	t      *tally
	totals Totals
}

// Totals is what a recorder has seen, for those who look often.
type Totals struct {
	Requests, Failed int64
	Bytes            int64 // of bodies
	Hits, Misses     int64
	Lag              time.Duration // of the last request: from when it was due to when it was sent
	Due              time.Time     // when the last request was due: how far the run is
}

// New returns an empty recorder for results from registries, by their bases.
func New(registries []string) *Recorder { return &Recorder{t: newTally(registries)} }

// Add counts a result.
func (r *Recorder) Add(x load.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.add(x)
	r.totals.add(x)
}

func (t *Totals) add(x load.Result) {
	t.Requests++
	t.Bytes += x.Bytes
	if x.Cause != load.CauseNone {
		t.Failed++
	} else if hit, known := Hit(x.Outcome); hit {
		t.Hits++
	} else if known {
		t.Misses++
	}
	if !x.Sent.IsZero() {
		t.Lag = x.Late
	}
	if x.Intended.After(t.Due) {
		t.Due = x.Intended
	}
}

// Generator adds what a sender says of itself.
func (r *Recorder) Generator(s load.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.generator = r.t.generator.With(s)
}

// Merge adds all that o has seen at the same time, exactly. Histograms and counts are
// those that one recorder of all results would have.
func (r *Recorder) Merge(o *Recorder) {
	s, totals := o.Snapshot(), o.Totals()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.absorb(s)
	r.totals.Requests += totals.Requests
	r.totals.Failed += totals.Failed
	r.totals.Bytes += totals.Bytes
	r.totals.Hits += totals.Hits
	r.totals.Misses += totals.Misses
	if totals.Due.After(r.totals.Due) {
		r.totals.Due, r.totals.Lag = totals.Due, totals.Lag
	}
}

// Totals returns the counts so far.
func (r *Recorder) Totals() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.totals
}

// Snapshot returns a summary of what was counted so far, which the caller owns.
func (r *Recorder) Snapshot() *Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.t.summary()
}
