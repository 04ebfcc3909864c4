package gc

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
)

// scrubLook is how often it is looked for blobs whose comparison is due.
const scrubLook = 10 * time.Second

// scrubAll compares what is due with its digest until ctx ends.
func (g *Collector) scrubAll(ctx context.Context) {
	for {
		if _, err := g.scrub(ctx, g.cfg.ScrubEvery, g.throttle); err != nil && ctx.Err() == nil {
			g.cfg.Logger.Error("comparing blobs with their digests", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(scrubLook):
		}
	}
}

// throttle waits until n bytes may be read.
func (g *Collector) throttle(ctx context.Context, n int) error { return g.rate.WaitN(ctx, n) }

// Verify compares all verified blobs with their digests, now and as fast as the
// disk allows. progress, if not nil, is told after each how many of how many are
// done.
func (g *Collector) Verify(ctx context.Context, progress func(done, all int)) (Report, error) {
	due := g.due(0)
	var total Report
	var errs []error
	for i, b := range due {
		r, err := g.compare(ctx, b, nil)
		total.add(r)
		if err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
		if progress != nil {
			progress(i+1, len(due))
		}
	}
	return total, errors.Join(errs...)
}

// scrub compares the blobs that were last compared longer ago than every.
func (g *Collector) scrub(ctx context.Context, every time.Duration, throttle func(context.Context, int) error) (Report, error) {
	due := g.due(every)
	var bytes int64
	for _, b := range due {
		bytes += b.Descriptor.Size
	}
	g.left(len(due), bytes)
	var total Report
	var errs []error
	for i, b := range due {
		r, err := g.compare(ctx, b, throttle)
		total.add(r)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			errs = append(errs, err)
		}
		bytes -= b.Descriptor.Size
		g.left(len(due)-i-1, bytes)
	}
	return total, errors.Join(errs...)
}

// left notes what is still due.
func (g *Collector) left(blobs int, bytes int64) {
	g.note(Report{}, func(s *Stats) { s.ScrubDue, s.ScrubDueBytes = int64(blobs), bytes })
}

// due returns the blobs whose last comparison was longer ago than every, the oldest
// first. One in the future was made with a wrong clock, and is due.
func (g *Collector) due(every time.Duration) []cache.BlobInfo {
	now := time.Now()
	list := slices.DeleteFunc(g.cache.Blobs(), func(b cache.BlobInfo) bool {
		return b.VerifiedAt.IsZero() || now.Sub(b.VerifiedAt) < every && !b.VerifiedAt.After(now.Add(time.Minute))
	})
	slices.SortFunc(list, func(a, b cache.BlobInfo) int { return a.VerifiedAt.Compare(b.VerifiedAt) })
	return list
}

// compare reads one blob. A damaged one is dropped by the cache, and fetched again
// by whoever needs it; that it can't be read, or was cut, is damage too.
func (g *Collector) compare(ctx context.Context, b cache.BlobInfo, throttle func(context.Context, int) error) (Report, error) {
	forgotten := g.cache.Stats().Forgotten
	x, ok := g.cache.Find("", b.Descriptor.Digest)
	if !ok {
		// Gone meanwhile, or found to be no more what it was when it was opened.
		r := Report{Corrupt: min(1, g.cache.Stats().Forgotten-forgotten)}
		g.note(r, func(*Stats) {})
		return r, nil
	}
	defer x.Release()
	if !x.Verified() || !x.Complete() {
		return Report{}, nil
	}
	err := x.Verify(ctx, throttle)
	if ctx.Err() != nil {
		return Report{}, ctx.Err()
	}
	r := Report{Scrubbed: 1, ScrubBytes: b.Descriptor.Size}
	if errors.Is(err, cache.ErrMismatch) {
		r.Corrupt, err = 1, nil
	} else if err != nil && !g.has(b.Descriptor.Digest) {
		r.Corrupt = 1
	}
	g.note(r, func(*Stats) {})
	return r, err
}

func (g *Collector) has(d digest.Digest) bool {
	x, ok := g.cache.Find("", d)
	if ok {
		x.Release()
	}
	return ok
}
