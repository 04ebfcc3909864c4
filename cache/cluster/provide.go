package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/fill"
)

// provided is what a peer reads.
type provided struct {
	*fill.Follower
	c *Cluster
	x *cache.Content
}

// Read implements io.Reader.
func (p *provided) Read(b []byte) (int, error) {
	n, err := p.Follower.Read(b)
	p.c.count.given.Add(int64(n))
	return n, err
}

// Close implements io.Closer.
func (p *provided) Close() error {
	err := p.Follower.Close()
	p.x.Release()
	return err
}

// Provide implements peer.Provider: from what is in the cache, and from what this
// replica fetches from an upstream itself. What it gets from others is not passed on
// before it is here, or two could wait for each other.
func (c *Cluster) Provide(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error) {
	key := sharedindex.Key{Origin: r.Origin, Digest: r.Digest}
	x, ok := c.cache.Find(r.Origin, r.Digest)
	if !ok {
		if x = c.fetched(key); x == nil {
			return nil, 0, peer.ErrNothing
		}
	}
	size := x.Descriptor().Size
	end := r.End
	if end < 0 || end > size {
		end = size
	}
	held := false
	if r.Off < end {
		held, _ = x.Extent(r.Off, end)
	}
	coming := func(off int64) <-chan struct{} { return c.coming(key, off) }
	if r.Off >= end || !held && coming(r.Off) == nil {
		next := worthAsking(x, r.Off, end)
		x.Release()
		return nil, 0, &peer.NotThereError{Next: next}
	}
	c.count.asked.Add(1)
	return &provided{c.fill.Follow(ctx, x, fill.Extent{Off: r.Off, End: end}, coming), c, x}, size, nil
}

// worthwhile is how many bytes a peer must have in one piece for it to be asked for these
// in the middle of what the upstream is asked for, which takes a request more of it.
const worthwhile = 64 << 10

// worthAsking returns where between off and end the first piece is that is there and
// large enough; 0 if there is none.
func worthAsking(x *cache.Content, off, end int64) int64 {
	for off < end {
		held, until := x.Extent(off, end)
		if held && until-off >= worthwhile {
			return off
		}
		off = until
	}
	return 0
}

// errUnreached says that a peer was not reached a moment ago.
var errUnreached = errors.New("the replica was not reached a moment ago")

// unreachedFor is how long a peer is not asked that was not reached.
const unreachedFor = 2 * time.Second

// reachable fails if a peer was not reached a moment ago.
func (c *Cluster) reachable(replica string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.away[replica]
	if !ok {
		return nil
	}
	if time.Now().Before(until) {
		return errUnreached
	}
	delete(c.away, replica)
	return nil
}

// missed takes note of a peer that did not give what the index says it has.
func (c *Cluster) missed(ctx context.Context, key sharedindex.Key, replica string, err error) {
	switch {
	case ctx.Err() != nil, errors.Is(err, errUnreached), errors.Is(err, peer.ErrNotThere):
		return
	case errors.Is(err, peer.ErrNothing):
		keys := []sharedindex.Key{{Digest: key.Digest}}
		if key.Origin != "" {
			keys = append(keys, key)
		}
		_ = c.cfg.Index.Drop(ctx, replica, keys...) // counted by the index
		return
	}
	c.count.failed[fromPeer].Add(1)
	c.mu.Lock()
	c.away[replica] = time.Now().Add(unreachedFor)
	c.mu.Unlock()
}

// isRefused reports whether there is nobody who listens: the machine says so, and does
// not only stay silent.
func isRefused(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, io.EOF) || errors.As(err, &op) && errors.Is(op.Err, syscall.EPIPE)
}

// lost takes note of an object that the tier did not give: one that is damaged, or not
// there any more, nobody is to ask for again. What it is was said by the index, which is
// not believed so far that something is removed: only what the tier itself lists is.
func (c *Cluster) lost(ctx context.Context, d digest.Digest, o tier.Object, err error) {
	damaged := errors.Is(err, tier.ErrDamaged)
	if !damaged && !isGone(err) {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if c.cfg.Index != nil {
		_ = c.cfg.Index.Unpublish(ctx, d, o.Generation) // counted by the index
	}
	if !damaged {
		return
	}
	listed, found, err := c.cfg.Tier.Find(ctx, d)
	if err != nil || !found || listed != o {
		return
	}
	c.count.damaged.Add(1)
	err = c.cfg.Tier.Remove(ctx, d, o.Generation)
	c.failed("reading from the shared tier", fmt.Errorf("the object of %s was damaged and is removed: %w", d, errors.Join(tier.ErrDamaged, err)))
}
