package cluster

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

const (
	// remindLook is how often it is looked whether the index has forgotten what this
	// replica has; remindEvery is how often it is told anyway at the least, as it forgets
	// what it is not asked for.
	remindLook  = time.Second
	remindEvery = 24 * time.Hour
	// remindOf blobs are told at a time. Then it is paused for remindShare times as long
	// as that took, at least remindPause: all replicas may do it at once.
	remindOf    = 256
	remindShare = 20
	remindPause = 50 * time.Millisecond
)

// remind tells the index all that is verified here, after a start, each day, and when
// the index has lost it, until ctx ends.
func (c *Cluster) remind(ctx context.Context) error {
	every := remindEvery
	if r := c.cfg.Remember; r > 0 {
		every = min(every, r/2)
	}
	var told time.Time
	began := time.Now()
	for pause.For(ctx, remindLook) {
		if !c.cache.Scanned() || !c.cfg.Index.Stats().Up {
			continue
		}
		lost := c.forgotten.Swap(false)
		if !lost && !told.IsZero() && time.Since(told) < every {
			continue
		}
		before := time.Now()
		if told.IsZero() && !lost {
			before = began // what was fetched since then it was told
		}
		told = time.Now()
		if err := c.holdAll(ctx, before); err != nil {
			return nil // ctx has ended
		}
	}
	return nil
}

// holdAll tells the index all that is verified here and was fetched before then. Where the
// index is away it waits.
func (c *Cluster) holdAll(ctx context.Context, before time.Time) error {
	var keys []sharedindex.Key
	for _, b := range c.cache.Blobs() {
		if b.Origin == "" && b.FetchedAt.Before(before) {
			keys = append(keys, sharedindex.Key{Digest: b.Descriptor.Digest})
		}
	}
	for len(keys) > 0 {
		some := keys[:min(remindOf, len(keys))]
		began, wait := time.Now(), remindLook
		if !errors.Is(c.cfg.Index.Hold(ctx, some...), sharedindex.ErrAway) { // other errors are of one blob
			keys = keys[len(some):]
			wait = max(remindPause, remindShare*time.Since(began))
		}
		if !pause.For(ctx, wait+mathrand.N(wait)) {
			return ctx.Err()
		}
	}
	return nil
}
