// Package warmup fills a registry with what a trace will ask for: each distinct blob
// once, also where several repositories have it, in the sizes that were recorded, and
// manifests that list the blobs which the trace reads after them.
package warmup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Config says what is pushed and how.
type Config struct {
	Maker *content.Maker
	// Threads is how many uploads run at a time. Default 1.
	Threads int
	// Repository gets everything. "": the repositories of the trace.
	Repository string
	// Blobs pushes blobs in place of manifests, as the original does.
	Blobs bool
	// Dedupe is the share of the blobs, 0 to 1, that have the content of another one
	// of about their size.
	Dedupe float64
	// Verify is the share of what was pushed, 0 to 1, that is read back and compared.
	Verify float64
	// Unsized is the size of what the trace has no size of, bytes. Default 4096.
	Unsized int64
	// Attempts is how often a push is tried. Default 6, with pauses that grow, of some
	// 3 seconds together, or those that the registry asks for.
	Attempts int
	// Save is called with the map every few seconds, and at the end, also of a warmup
	// that fails. It may be nil.
	Save func(outcome.Map) error
	// Progress is called with the figures so far, now and then, in one goroutine at a
	// time. It may be nil.
	Progress func(Stats)
}

// Stats says what was done.
type Stats struct {
	Objects   int            `json:"objects"` // distinct ones that the trace asks for
	Done      int            `json:"done"`
	Pushed    int            `json:"pushed"`  // what is mounted among it; not configurations
	Present   int            `json:"present"` // from an earlier warmup
	Shared    int            `json:"shared"`  // with the content of another
	Mounted   int            `json:"mounted"` // of those, without sending it again
	Bad       int            `json:"bad"`
	Bytes     int64          `json:"bytes"` // sent
	Verified  int            `json:"verified"`
	Manifests int            `json:"manifests"`
	Why       map[string]int `json:"why,omitempty"` // of what is bad
	Example   string         `json:"example,omitempty"`
}

// saveEvery is how much of a warmup a kill may cost.
const saveEvery = 3 * time.Second

// Run pushes what r asks for to the registry of c, its first, and returns what stands
// for each URI. known is the map of an earlier run: what is in it, and in the
// registry, is not pushed again. What cannot be pushed is outcome.Bad and counted;
// an error is that nothing can be pushed, that the registry is lost on the way, or
// that ctx ended: the map then has what was done, and the next run goes on from it.
func Run(ctx context.Context, c *load.Client, r trace.Reader, known outcome.Map, cfg Config) (outcome.Map, Stats, error) {
	if cfg.Threads <= 0 {
		cfg.Threads = 1
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 6
	}
	if cfg.Unsized <= 0 {
		cfg.Unsized = 4096
	}
	plan, err := survey(ctx, r, cfg)
	if err != nil {
		return nil, Stats{}, err
	}
	w := &worker{cfg: cfg, client: c, done: maps.Clone(known), configs: make(map[string]struct{}), stats: Stats{Objects: len(plan.blobs) + len(plan.manifests)}}
	if w.done == nil {
		w.done = outcome.Map{}
	}
	if len(plan.blobs)+len(plan.manifests) == 0 {
		return w.done, w.stats, errors.New("warming up: the trace reads no blob and no manifest")
	}
	err = w.all(ctx, plan)
	if cfg.Save != nil {
		err = errors.Join(err, cfg.Save(w.done))
	}
	if err == nil && w.stats.Bad == w.stats.Objects {
		err = fmt.Errorf("warming up: nothing could be pushed, for instance %s", w.stats.Example)
	}
	return w.done, w.stats, err
}
