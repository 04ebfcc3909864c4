// Package schedule makes the requests of a trace into those to send: when, to which
// registry, and for what of that which was pushed there.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Pick is how the registry of a request is chosen.
type Pick string

// How registries are chosen.
const (
	Random     Pick = "random"      // by Config.Seed; what the original did
	RoundRobin Pick = "round-robin" //
	ByHost     Pick = "host"        // by the host that answered in the trace
	ByClient   Pick = "client"      // by who asked in the trace
)

// Uploads is what is done for the uploads of a trace.
type Uploads string

// What is done for uploads.
const (
	// Whole sends an upload when its last part was recorded, as one; the earlier
	// parts are left out and their bytes are added.
	Whole Uploads = "whole"
	// Parts sends each part as it was recorded.
	Parts Uploads = "parts"
)

// Config says how a trace is replayed. The zero value replays it as it is.
type Config struct {
	// Map says what was pushed for each URI: a digest, or "bad". Nil: requests go to
	// the paths that were recorded.
	Map map[string]string
	// Speed divides the times of the trace. Default 1.
	Speed float64
	// Rate replaces the times of the trace: so many requests a second. 0: not.
	Rate float64
	// Poisson is of Rate: arrivals are independent of each other, not evenly spaced.
	Poisson bool
	// Ramp is in what time the rate grows to its full height, from 0.
	Ramp time.Duration
	// Duration ends the run: what is due later is not sent. 0: the trace's end does.
	Duration time.Duration
	// Registries is how many there are. Default 1.
	Registries int
	Pick       Pick // default Random
	Seed       uint64
	// NS is the registry that a cache is to ask, sent as the query "ns".
	NS string
	// Repository is the one that all was pushed to. "": the repositories of the trace.
	Repository string
	// Blobs says that manifests were pushed as blobs, as the original did.
	Blobs   bool
	Uploads Uploads // default Whole
	// Compat decides as the original did: what Map has is a GET, what it does not have is pushed.
	Compat bool
}

// Validate returns an error if c makes no sense.
func (c Config) Validate() error {
	switch {
	case c.Speed < 0:
		return fmt.Errorf("speed %v is negative", c.Speed)
	case c.Rate < 0:
		return fmt.Errorf("rate %v is negative", c.Rate)
	}
	return nil
}

// Stats says what became of the requests of the trace.
type Stats struct {
	Read    uint64            `json:"read"`
	Items   uint64            `json:"items"`
	LeftOut map[Reason]uint64 `json:"leftOut,omitempty"`
}

// Reason is why a request of the trace is not sent.
type Reason string

// Why requests are left out.
const (
	Bad         Reason = "bad"         // it could not be pushed
	Unknown     Reason = "unknown"     // nothing was pushed for it
	Part        Reason = "part"        // an earlier part of an upload that is sent as a whole
	Unsupported Reason = "unsupported" // such as DELETE
	Refused     Reason = "refused"     // the registry refused it when it was recorded
)

// Source makes the items of a trace. It is a load.Source.
type Source struct{}

var _ load.Source = (*Source)(nil)

// New returns the items of r.
func New(r trace.Reader, cfg Config) (*Source, error) { return &Source{}, cfg.Validate() }

// Next implements load.Source.
func (s *Source) Next(ctx context.Context) (load.Item, error) {
	return load.Item{}, errors.ErrUnsupported
}

// Stats may be called while the source is read.
func (s *Source) Stats() Stats { return Stats{} }
