package report

import (
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Recorder counts results. Its methods may be called in parallel.
type Recorder struct {
	mu         sync.Mutex
	registries []string
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
func New(registries []string) *Recorder { return &Recorder{registries: registries} }

// Add counts a result.
func (r *Recorder) Add(load.Result) {}

// Generator keeps what the sender says of itself.
func (r *Recorder) Generator(load.Stats) {}

// Merge adds all that o has seen, exactly. The error says that they do not fit.
func (r *Recorder) Merge(o *Recorder) error { return nil }

// Totals returns the counts so far.
func (r *Recorder) Totals() Totals { return Totals{} }

// Snapshot returns a summary of what was counted so far, which the caller owns.
func (r *Recorder) Snapshot() *Summary { return &Summary{} }
