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
	Last        time.Time // when the last collection ended
	Took        time.Duration
	ScrubDue    int64 // verified blobs whose comparison is due, as last counted
	LastError   string
}

// Collector does the duties. Its methods may be called in parallel.
type Collector struct {
	cache *cache.Cache
	index *index.Index
	cfg   Config
	rate  *rate.Limiter

	collecting sync.Mutex

	mu    sync.Mutex
	stats Stats
}

// New returns a collector of what c holds and i leads to.
func New(c *cache.Cache, i *index.Index, cfg Config) *Collector {
	cfg = cfg.withDefaults()
	return &Collector{
		cache: c, index: i, cfg: cfg,
		rate: rate.NewLimiter(rate.Limit(cfg.ScrubRate), int(max(cfg.ScrubRate, 1<<20))),
	}
}

// Run collects at its intervals and scrubs in between, until ctx ends.
func (g *Collector) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if g.cfg.CheckSHA {
		wg.Go(func() { g.scrubAll(ctx) })
	}
	for {
		wait := time.Duration(float64(g.cfg.Interval) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if _, err := g.Collect(ctx); err != nil && ctx.Err() == nil {
			g.cfg.Logger.Error("collecting garbage", "error", err)
		}
	}
}

// Collect does all duties but scrubbing, now. One runs at a time.
func (g *Collector) Collect(ctx context.Context) (Report, error) {
	g.collecting.Lock()
	defer g.collecting.Unlock()
	start := time.Now()
	before := g.cache.Stats()
	var r Report
	err := errors.Join(
		g.sweep(ctx, &r),
		g.links(ctx, &r),
		g.ages(ctx, &r),
		g.size(ctx, &r),
	)
	r.Bytes += max(0, before.Bytes-g.cache.Stats().Bytes)
	if err != nil {
		err = fmt.Errorf("collecting garbage: %w", err)
	}
	g.note(r, func(s *Stats) {
		s.Collections++
		s.Last, s.Took = time.Now(), time.Since(start)
		s.LastError = ""
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

// sweep is duties c, d and e as far as they are about files.
func (g *Collector) sweep(ctx context.Context, r *Report) error {
	s, err := g.cache.Sweep(ctx, g.cfg.Grace)
	r.Undesired += int64(s.Undesired)
	r.Orphans += int64(s.Orphans)
	r.Empty += int64(s.Empty)
	r.Bytes += s.Bytes
	t, err2 := g.index.Sweep(ctx, g.cfg.Grace)
	r.Undesired += int64(t.Undesired)
	return errors.Join(err, err2)
}

// size evicts down to the low mark when little is left of the limit.
func (g *Collector) size(ctx context.Context, r *Report) error {
	limit := g.cfg.MaxBytes
	low := int64(float64(limit) * g.cfg.LowMark)
	before := g.cache.Stats()
	if limit == 0 || before.Bytes <= limit-(limit-low)/10 {
		return ctx.Err()
	}
	err := g.cache.EvictTo(ctx, low)
	r.Size += g.cache.Stats().Evictions - before.Evictions
	return err
}

// age returns how long ago t was. What lies in the future is as of now: a clock
// was put back, and nothing should go because of that.
func age(now, t time.Time) time.Duration { return max(0, now.Sub(t)) }

// over reports which bound is passed by what was fetched and used then.
func (a Ages) over(now, fetched, used time.Time) (tooOld, unused bool) {
	tooOld = a.MaxAge > 0 && age(now, fetched) > a.MaxAge
	unused = a.MaxUnused > 0 && age(now, used) > a.MaxUnused
	return tooOld, unused
}

// links drops links that are old or unused, and those whose manifest is gone.
func (g *Collector) links(ctx context.Context, r *Report) error {
	if !g.index.Scanned() || !g.cache.Scanned() {
		return ctx.Err()
	}
	now := time.Now()
	for _, l := range g.index.Links() {
		if err := ctx.Err(); err != nil {
			return err
		}
		ages := g.cfg.Manifests
		if l.Key.Kind == index.KindBlobs {
			ages = g.cfg.Layers
		}
		switch tooOld, unused := ages.over(now, l.FetchedAt, l.LastUsed); {
		case tooOld:
			g.index.Remove(l.Key)
			r.Age++
		case unused:
			g.index.Remove(l.Key)
			r.Unused++
		case g.isEmpty(l, now):
			g.index.Remove(l.Key)
			r.Empty++
		}
	}
	return nil
}

// isEmpty reports whether l leads to a content that is not there. One that is just
// being stored counts as there.
func (g *Collector) isEmpty(l index.Link, now time.Time) bool {
	if l.Descriptor.Digest == "" || age(now, l.CheckedAt) < g.cfg.Grace {
		return false
	}
	x, ok := g.cache.Find(l.Key.Scheme+"://"+l.Key.Host, l.Descriptor.Digest)
	if !ok {
		x, ok = g.cache.Find(l.Key.Host, l.Descriptor.Digest)
	}
	if ok {
		x.Release()
	}
	return !ok
}

// ages drops blobs that are old or unused. A manifest is used when one of its
// links is: it may be served from memory.
func (g *Collector) ages(ctx context.Context, r *Report) error {
	now := time.Now()
	for _, b := range g.cache.Blobs() {
		if err := ctx.Err(); err != nil {
			return err
		}
		ages, used := g.cfg.Layers, b.LastUsed
		for _, l := range g.index.To(b.Descriptor.Digest) {
			if l.Key.Kind != index.KindBlobs {
				ages = g.cfg.Manifests
			}
			if l.LastUsed.After(used) {
				used = l.LastUsed
			}
		}
		tooOld, unused := ages.over(now, b.FetchedAt, used)
		switch {
		case b.FetchedAt.IsZero(), !tooOld && !unused:
			continue
		case b.Holders > 0 && (!tooOld || b.VerifiedAt.IsZero()):
			continue // in use, or still being fetched
		}
		removed, err := g.cache.Remove(b.Key)
		switch {
		case err != nil:
			return err
		case removed && tooOld:
			r.Age++
		case removed:
			r.Unused++
		}
	}
	return nil
}
