package gc

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
)

// sweep is duties c, d and e as far as they are about files.
func (g *Collector) sweep(ctx context.Context, r *Report) error {
	s, err := g.cache.Sweep(ctx, g.cfg.Grace)
	r.Undesired += int64(s.Undesired)
	r.Orphans += int64(s.Orphans)
	r.Empty += int64(s.Empty)
	r.Bytes += s.Bytes
	t, err2 := g.index.Sweep(ctx, g.cfg.Grace)
	r.Undesired += int64(t.Undesired + t.Damaged)
	return errors.Join(err, err2)
}

// crowded reports whether nine tenths of the space between the low mark and the
// limit are in use.
func (g *Collector) crowded() bool {
	limit := g.cfg.MaxBytes
	return limit > 0 && g.cache.Stats().Bytes > limit-(limit-g.low())/10
}

func (g *Collector) low() int64 { return int64(float64(g.cfg.MaxBytes) * g.cfg.LowMark) }

// size evicts down to the low mark when little is left of the limit.
func (g *Collector) size(ctx context.Context, r *Report) error {
	if !g.crowded() {
		return ctx.Err()
	}
	before := g.cache.Stats().Evictions
	err := g.cache.EvictTo(ctx, g.low())
	r.Size += g.cache.Stats().Evictions - before
	return err
}

// over reports which bound is passed by what was fetched and used so long ago.
func (a Ages) over(fetched, used time.Duration) (tooOld, unused bool) {
	return a.MaxAge > 0 && fetched > a.MaxAge, a.MaxUnused > 0 && used > a.MaxUnused
}

// links drops links that are old or unused, unless that can't be told now, and
// those whose content is gone.
func (g *Collector) links(ctx context.Context, r *Report, ageless bool) error {
	now := time.Now()
	all := g.index.Links() // before what they lead to
	there := g.contents()
	maps.DeleteFunc(g.manifests, func(d digest.Digest, _ struct{}) bool { return !has(there, d) })
	for _, l := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		ages := g.cfg.Layers
		if l.Key.Kind != index.KindBlobs {
			ages = g.cfg.Manifests
			g.manifests[l.Descriptor.Digest] = struct{}{}
		}
		var tooOld, unused bool
		if !ageless {
			id := l.Key.ID()
			tooOld, unused = ages.over(g.future.age("fetched "+id, now, l.FetchedAt), g.future.age("used "+id, now, l.LastUsed))
		}
		switch {
		case tooOld:
			r.Age++
		case unused:
			r.Unused++
		case l.Descriptor.Digest != "" && !has(there, l.Descriptor.Digest) && !g.justChecked(now, l):
			r.Empty++
		default:
			continue
		}
		g.index.Remove(l.Key)
	}
	return nil
}

// justChecked reports whether l may lead to what is just being stored.
func (g *Collector) justChecked(now time.Time, l index.Link) bool {
	age := now.Sub(l.CheckedAt)
	return age < g.cfg.Grace && age > -futureAfter
}

// contents returns the digests the cache has something of.
func (g *Collector) contents() map[digest.Digest]struct{} {
	there := make(map[digest.Digest]struct{})
	for _, b := range g.cache.Blobs() {
		if b.Bytes > 0 { // else it is held, and nothing stored yet
			there[b.Descriptor.Digest] = struct{}{}
		}
	}
	return there
}

// ages drops blobs that are old or unused. A manifest is used when one of its
// links is: it may be served from memory.
func (g *Collector) ages(ctx context.Context, r *Report) error {
	now := time.Now()
	for _, b := range g.cache.Blobs() {
		if err := ctx.Err(); err != nil {
			return err
		}
		tooOld, unused := g.bounds(b.Descriptor.Digest).over(g.blobAges(now, b))
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

func has(set map[digest.Digest]struct{}, d digest.Digest) bool {
	_, ok := set[d]
	return ok
}

// bounds returns the bounds for what has the digest.
func (g *Collector) bounds(d digest.Digest) Ages {
	if has(g.manifests, d) {
		return g.cfg.Manifests
	}
	return g.cfg.Layers
}

// blobAges returns how long ago b was fetched and used.
func (g *Collector) blobAges(now time.Time, b cache.BlobInfo) (fetched, used time.Duration) {
	fetched = g.future.age("fetched "+string(b.Key), now, b.FetchedAt)
	used = g.future.age("used "+string(b.Key), now, b.LastUsed)
	for _, l := range g.index.To(b.Descriptor.Digest) {
		used = min(used, g.future.age("used "+l.Key.ID(), now, l.LastUsed))
	}
	return fetched, used
}
