// Package gc keeps a shared cache in order: below its size, free of what is old or
// unused, of what is damaged, and of what should not be there. It has six duties,
// each with counters of its own:
//
//   - size: above the limit, evict by the cache's policy down to a low mark
//   - corruption: read verified blobs again, a few at a time, and compare digests
//   - empty keys: drop links and blobs whose content is gone
//   - undesired files: remove from the folders what is none of the cache's
//   - orphans: remove data without metadata
//   - age: drop what was fetched, or last used, too long ago
//
// What is dropped is fetched again by whoever needs it; what is in use goes on
// being served to who has it.
package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
)

// Ages bounds how old a content may be. 0 is no bound.
type Ages struct {
	MaxAge    time.Duration // since it was fetched
	MaxUnused time.Duration // since it was last served
}

// Config configures a Collector.
type Config struct {
	// Interval is the time between two collections, give or take a tenth of it,
	// so that the instances of a cluster do not keep step. 20 minutes if 0.
	Interval time.Duration
	// MaxBytes is the cap of the disk space in use; 0 is none. The cache has to
	// have the same, which it enforces whenever something is stored: a
	// collection makes room ahead.
	MaxBytes int64
	// LowMark is what a collection goes down to, as a share of MaxBytes, if it
	// finds nine tenths of what lies between in use; 0.9 if 0.
	LowMark float64
	// Layers and Manifests bound ages. A blob that a manifest's name leads to
	// is a manifest.
	Layers, Manifests Ages
	// CheckSHA has verified blobs read and compared again.
	CheckSHA bool
	// ScrubRate bounds that, in bytes a second; 32 MiB if 0.
	ScrubRate int64
	// ScrubEvery is how long a comparison is good for; 7 days if 0.
	ScrubEvery time.Duration
	// Grace is how old a file that looks lost has to be; 10 minutes if 0.
	Grace time.Duration
	// Free returns the bytes that are free on the disk, and is looked at every
	// 10 seconds: below MinFree a collection runs at once. Both are optional; the
	// cache itself gives up content when told what to leave free.
	Free    func() (int64, error)
	MinFree int64
	// Logger is told what a collection in the background could not do. Default
	// slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = 20 * time.Minute
	}
	if c.LowMark == 0 {
		c.LowMark = 0.9
	}
	if c.ScrubRate == 0 {
		c.ScrubRate = 32 << 20
	}
	if c.ScrubEvery == 0 {
		c.ScrubEvery = 7 * 24 * time.Hour
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Report is what one collection did, or all of them: see Stats.
type Report struct {
	Size       int64 `json:"size"`       // blobs evicted for want of space
	Age        int64 `json:"age"`        // blobs and links dropped because of MaxAge
	Unused     int64 `json:"unused"`     // blobs and links dropped because of MaxUnused
	Corrupt    int64 `json:"corrupt"`    // blobs found damaged
	Empty      int64 `json:"empty"`      // links and blobs without content
	Undesired  int64 `json:"undesired"`  // files removed that are none of the cache's
	Orphans    int64 `json:"orphans"`    // files removed that lack a counterpart
	Scrubbed   int64 `json:"scrubbed"`   // blobs compared with their digest
	ScrubBytes int64 `json:"scrubBytes"` // of these
	Bytes      int64 `json:"bytes"`      // disk space given back, scrubbing not counted
}

func (r *Report) add(o Report) {
	r.Size += o.Size
	r.Age += o.Age
	r.Unused += o.Unused
	r.Corrupt += o.Corrupt
	r.Empty += o.Empty
	r.Undesired += o.Undesired
	r.Orphans += o.Orphans
	r.Scrubbed += o.Scrubbed
	r.ScrubBytes += o.ScrubBytes
	r.Bytes += o.Bytes
}

// Stats is what a Collector did since it was made.
type Stats struct {
	Report
	Collections int64
	Collecting  bool      // one runs now
	Last        time.Time // when the last collection ended
	Took        time.Duration
	LowSpace    int64 // collections, whole or for size alone, because of little space
	ClockJumps  int64 // collections that left ages alone because the clock had been set
	LastError   string

	// What is left of the comparisons that are due, as last counted.
	ScrubDue      int64 // verified blobs
	ScrubDueBytes int64 // of these
}

// Collector does the duties. Its methods may be called in parallel.
type Collector struct {
	cache *cache.Cache
	index *index.Index
	cfg   Config
	rate  *rate.Limiter

	// collecting is full while a collection runs; what follows belongs to it.
	collecting chan struct{}
	clock      reading
	future     future
	manifests  map[digest.Digest]struct{} // that a link led to, now or before

	mu    sync.Mutex
	stats Stats
}

// New returns a collector of what c holds and i leads to.
func New(c *cache.Cache, i *index.Index, cfg Config) *Collector {
	cfg = cfg.withDefaults()
	return &Collector{
		cache: c, index: i, cfg: cfg,
		rate:       rate.NewLimiter(rate.Limit(cfg.ScrubRate), int(max(cfg.ScrubRate, 1<<20))),
		collecting: make(chan struct{}, 1),
		clock:      readClock(),
		manifests:  make(map[digest.Digest]struct{}),
	}
}

const (
	spaceLook = 10 * time.Second
	spaceWait = time.Minute // between two collections for want of free space
)

// Run collects at its intervals and when space is low, and scrubs in between, until
// ctx ends.
func (g *Collector) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if g.cfg.CheckSHA {
		wg.Go(func() { g.scrubAll(ctx) })
	}
	space := time.NewTicker(spaceLook)
	defer space.Stop()
	next := time.NewTimer(g.wait())
	defer next.Stop()
	var lastLow time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			_, err = g.Collect(ctx)
			next.Reset(g.wait())
		case now := <-space.C:
			if lastLow.IsZero() || now.Sub(lastLow) >= spaceWait {
				var low bool
				if low, err = g.makeFree(ctx); low {
					lastLow = now
					break
				}
			}
			err = errors.Join(err, g.makeRoom(ctx))
		}
		if err != nil && ctx.Err() == nil {
			g.cfg.Logger.Error("collecting garbage", "error", err)
		}
	}
}

// wait returns the time until the next collection.
func (g *Collector) wait() time.Duration {
	return time.Duration(float64(g.cfg.Interval) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // no secret
}

// makeFree collects if too little is free on the disk, and reports whether it is.
func (g *Collector) makeFree(ctx context.Context) (low bool, err error) {
	if g.cfg.Free == nil {
		return false, nil
	}
	free, err := g.cfg.Free()
	if err != nil {
		return false, fmt.Errorf("looking for free space: %w", err)
	}
	if free >= g.cfg.MinFree {
		return false, nil
	}
	g.note(Report{}, func(s *Stats) { s.LowSpace++ })
	_, err = g.Collect(ctx)
	return true, err
}

// makeRoom does the duty of size alone, if there is need.
func (g *Collector) makeRoom(ctx context.Context) error {
	if !g.crowded() {
		return nil
	}
	if err := g.begin(ctx); err != nil {
		return err
	}
	defer g.end()
	before := g.cache.Stats().Bytes
	var r Report
	err := g.size(ctx, &r)
	r.Bytes = max(0, before-g.cache.Stats().Bytes)
	g.note(r, func(s *Stats) { s.LowSpace++ })
	return err
}

// begin waits for the collection that runs.
func (g *Collector) begin(ctx context.Context) error {
	select {
	case g.collecting <- struct{}{}:
		g.note(Report{}, func(s *Stats) { s.Collecting = true })
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Collector) end() {
	g.note(Report{}, func(s *Stats) { s.Collecting = false })
	<-g.collecting
}

// Collect does all duties but scrubbing, now. One runs at a time.
func (g *Collector) Collect(ctx context.Context) (Report, error) {
	if err := g.begin(ctx); err != nil {
		return Report{}, err
	}
	defer g.end()
	start := time.Now()
	before := g.cache.Stats().Bytes
	var r Report
	err := g.sweep(ctx, &r)
	jumped := false
	if g.index.Scanned() && g.cache.Scanned() {
		// Before that a blob may look unlinked or unused that is not.
		jumped = g.jumped()
		err = errors.Join(err, g.links(ctx, &r, jumped))
		if !jumped {
			err = errors.Join(err, g.ages(ctx, &r))
			g.future.turn()
		}
	}
	err = errors.Join(err, g.size(ctx, &r))
	r.Bytes += max(0, before-g.cache.Stats().Bytes)
	if err != nil {
		err = fmt.Errorf("collecting garbage: %w", err)
	}
	g.note(r, func(s *Stats) {
		s.Collections++
		s.Last, s.Took = time.Now(), time.Since(start)
		s.LastError = ""
		if jumped {
			s.ClockJumps++
		}
		if err != nil {
			s.LastError = err.Error()
		}
	})
	return r, err
}

// note adds a report to what was done.
func (g *Collector) note(r Report, and func(*Stats)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.add(r)
	and(&g.stats)
}

// Stats returns what was done.
func (g *Collector) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}
