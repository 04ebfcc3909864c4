// Package schedule makes the requests of a trace into those to send: when, to which
// registry, and for what of that which was pushed there.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"sync"
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
	// Map says what was pushed for each URI: a digest, or "bad". Nil: requests are for
	// what was recorded.
	Map map[string]string
	// Speed divides the times of the trace. Default 1.
	Speed float64
	// Rate replaces the times of the trace: so many requests a second. 0: not.
	Rate float64
	// Poisson is of Rate: arrivals are independent of each other, not evenly spaced.
	Poisson bool
	// Ramp is in what time the rate grows from 0 to its full height, evenly.
	Ramp time.Duration
	// Untimed says that nobody looks at when items are due, as in a closed loop.
	// Without it a trace without times is an error unless there is a Rate.
	Untimed bool
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
	// Compat decides as the original did: what Map has is a GET and what it does not
	// have is pushed, whatever was recorded.
	Compat bool
}

// Validate returns an error if c makes no sense.
func (c Config) Validate() error {
	switch {
	case !(c.Speed >= 0): // nor is it a number
		return fmt.Errorf("speed %v is below 0", c.Speed)
	case !(c.Rate >= 0):
		return fmt.Errorf("rate %v is below 0", c.Rate)
	case c.Ramp < 0:
		return fmt.Errorf("ramp %v is below 0", c.Ramp)
	case c.Poisson && c.Rate == 0:
		return errors.New("poisson is of a rate, and there is none")
	case c.Compat && c.Map == nil:
		return errors.New("compat needs to know what was pushed")
	}
	switch c.Pick {
	case "", Random, RoundRobin, ByHost, ByClient:
	default:
		return fmt.Errorf("pick %q is not %s, %s, %s or %s", c.Pick, Random, RoundRobin, ByHost, ByClient)
	}
	switch c.Uploads {
	case "", Whole, Parts:
	default:
		return fmt.Errorf("uploads %q is not %s or %s", c.Uploads, Whole, Parts)
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

// ErrUntimed is what a trace without times gives where times are needed.
var ErrUntimed = errors.New("the trace has no times: a rate or a closed loop is needed")

// Source makes the items of a trace. It is a load.Source.
type Source struct {
	r     trace.Reader
	cfg   Config
	query string
	clock clock
	rng   *rand.Rand // of registries
	parts map[uint64]int64

	mu    sync.Mutex
	stats Stats
}

var _ load.Source = (*Source)(nil)

// New returns the items of r.
func New(r trace.Reader, cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Registries <= 0 {
		cfg.Registries = 1
	}
	if cfg.Pick == "" {
		cfg.Pick = Random
	}
	s := &Source{
		r: r, cfg: cfg, clock: newClock(cfg), parts: map[uint64]int64{},
		rng:   rand.New(rand.NewPCG(cfg.Seed, 1)),
		stats: Stats{LeftOut: map[Reason]uint64{}},
	}
	if cfg.NS != "" {
		s.query = "ns=" + url.QueryEscape(cfg.NS)
	}
	return s, nil
}

// Next implements load.Source.
func (s *Source) Next(ctx context.Context) (load.Item, error) {
	for {
		if err := ctx.Err(); err != nil {
			return load.Item{}, context.Cause(ctx)
		}
		r, err := s.r.Next()
		if err != nil {
			return load.Item{}, err // io.EOF among them
		}
		it, why := s.item(&r)
		n, first := s.count(why)
		if why != "" {
			continue
		}
		if !first && r.Delay == 0 && r.Time.IsZero() && s.cfg.Rate == 0 && !s.cfg.Untimed {
			return load.Item{}, ErrUntimed
		}
		it.Seq, it.Query, it.Client = n, s.query, r.Client
		it.Due = s.clock.due(r.Delay)
		it.Registry = s.pick(&r, &it)
		return it, nil
	}
}

// count counts a request, and returns the number of its item.
func (s *Source) count(why Reason) (n uint64, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Read++
	if why != "" {
		s.stats.LeftOut[why]++
		return 0, false
	}
	s.stats.Items++
	return s.stats.Items - 1, s.stats.Read == 1
}

// pick returns the registry that an item goes to. Parts of an upload go to one.
func (s *Source) pick(r *trace.Request, it *load.Item) int {
	n := s.cfg.Registries
	if n == 1 {
		return 0
	}
	switch {
	case s.cfg.Pick == ByHost:
		return int(hashOf(r.Host) % uint64(n))
	case s.cfg.Pick == ByClient:
		return int(hashOf(r.Client) % uint64(n))
	case it.Op == load.Start || it.Op == load.Append || it.Op == load.Finish:
		return int(hashOf(trace.Parse(r.URI).Repository, r.Client) % uint64(n))
	case s.cfg.Pick == RoundRobin:
		return int(it.Seq % uint64(n))
	}
	return s.rng.IntN(n)
}

// Stats may be called while the source is read.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.LeftOut = maps.Clone(out.LeftOut)
	return out
}

// hashOf returns the FNV-1a hash of texts, which is the same in each run.
func hashOf(texts ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, t := range texts {
		for i := range len(t) {
			h = (h ^ uint64(t[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211 // in no text of UTF-8
	}
	return h ^ h>>32
}
