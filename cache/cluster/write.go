package cluster

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// claim is the right to write a blob to the tier.
type claim struct {
	c      *Cluster
	digest digest.Digest
	token  uint64
	cancel context.CancelCauseFunc // ends the writing

	mu    sync.Mutex
	until time.Time // by the steady clock
}

// renew asks for more time. Who has lost the claim ends to write; what it wrote has a
// name that nobody else's has.
func (w *claim) renew(ctx context.Context) {
	if errors.Is(w.c.cfg.Index.RenewClaim(ctx, w.digest, w.token), sharedindex.ErrFenced) {
		w.c.count.fenced.Add(1)
		w.cancel(errFenced)
	}
}

// write tells the others of what was verified, and writes it back, until ctx ends.
func (c *Cluster) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-c.queue:
			if err := c.share(ctx, d); err != nil && ctx.Err() == nil {
				c.count.unwritten.Add(1)
				c.failed("writing "+d.String()+" to the shared tier", err)
			}
		}
	}
}

// share tells that d is here, and writes it to the tier, unless it is there or somebody
// is at it.
func (c *Cluster) share(ctx context.Context, d digest.Digest) error {
	if c.cfg.Index != nil {
		_ = c.cfg.Index.Hold(ctx, sharedindex.Key{Digest: d}) // counted by the index
	}
	if c.cfg.Tier == nil {
		return nil
	}
	x, ok := c.cache.Find("", d)
	if !ok {
		return nil // it is gone already
	}
	defer x.Release()
	if c.cfg.Index != nil {
		token, claimed, err := c.cfg.Index.Claim(ctx, d)
		switch {
		case err == nil && claimed:
			return c.writeClaimed(ctx, x, token)
		case err == nil:
			c.later(ctx, d)
			return nil
		}
	}
	// Nobody says who is to write it: it is written if it is not there.
	if _, found, err := c.cfg.Tier.Find(ctx, d); found || err != nil {
		return err
	}
	return c.put(ctx, x, uint64(time.Now().UnixMicro()))
}

// later has d looked at again if somebody else is about to write it, for that one may
// not come to an end.
func (c *Cluster) later(ctx context.Context, d digest.Digest) {
	place, err := c.cfg.Index.Look(ctx, sharedindex.Key{Digest: d})
	if err != nil || place.Stored != nil {
		return
	}
	time.AfterFunc(c.cfg.LeaseTTL+rand.N(c.cfg.LeaseTTL), func() {
		select {
		case c.queue <- d:
		default:
			c.count.dropped.Add(1)
		}
	})
}

// writeClaimed writes x under a claim, and says where it is.
func (c *Cluster) writeClaimed(ctx context.Context, x *cache.Content, token uint64) error {
	d := x.Descriptor().Digest
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &claim{c: c, digest: d, token: token, cancel: cancel}
	c.mu.Lock()
	c.claims[w] = struct{}{}
	c.mu.Unlock()
	err := c.put(within, x, token)
	c.mu.Lock()
	delete(c.claims, w)
	c.mu.Unlock()
	after := context.WithoutCancel(ctx)
	if err == nil {
		err = c.cfg.Index.Publish(after, d, sharedindex.Stored{Generation: token, Size: x.Descriptor().Size})
		if err == nil || errors.Is(err, sharedindex.ErrAway) { // then it is found by the list of the tier
			return nil
		}
	} else if errors.Is(context.Cause(within), errFenced) {
		err = errFenced
	}
	if errors.Is(err, errFenced) || errors.Is(err, sharedindex.ErrFenced) {
		// Somebody else has written it since.
		return c.cfg.Tier.Remove(after, d, token)
	}
	_ = c.cfg.Index.Unclaim(after, d, token) // it ends by itself
	return err
}

// put writes x as a generation.
func (c *Cluster) put(ctx context.Context, x *cache.Content, generation uint64) error {
	desc := x.Descriptor()
	err := c.cfg.Tier.Put(ctx, desc.Digest, tier.Object{Generation: generation, Size: desc.Size}, unread{x})
	if err == nil {
		c.count.written.Add(1)
		c.count.writtenBytes.Add(desc.Size)
	}
	return err
}

// unread is content that is read without that being a use of it.
type unread struct{ x *cache.Content }

// ReadAt implements io.ReaderAt.
func (u unread) ReadAt(p []byte, off int64) (int, error) { return u.x.ReadNew(p, off) }
