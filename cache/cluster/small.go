package cluster

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// Fetch returns a blob of at most limit bytes that replicas or the tier have, whole and
// found to have its digest; false if none has. Nothing is fetched from an upstream.
func (c *Cluster) Fetch(ctx context.Context, d digest.Digest, limit int64) ([]byte, bool) {
	if c.cfg.Index == nil {
		if c.cfg.Tier == nil {
			return nil, false
		}
		o, found, err := c.cfg.Tier.Find(ctx, d)
		if err != nil || !found {
			return nil, false
		}
		return c.fetchStored(ctx, d, o, limit)
	}
	key := sharedindex.Key{Digest: d}
	place, err := c.cfg.Index.Look(ctx, key)
	if err != nil {
		return nil, false
	}
	for _, replica := range place.Holders {
		if text, ok := c.fetchHeld(ctx, key, replica, limit); ok {
			return text, true
		}
	}
	if o := place.Stored; o != nil {
		return c.fetchStored(ctx, d, tier.Object{Generation: o.Generation, Size: o.Size}, limit)
	}
	return nil, false
}

// fetchHeld is Fetch from a peer.
func (c *Cluster) fetchHeld(ctx context.Context, key sharedindex.Key, replica string, limit int64) ([]byte, bool) {
	if c.reachable(replica) != nil {
		return nil, false
	}
	a, err := c.cfg.Peers.Open(ctx, replica, peer.Request{Digest: key.Digest, End: -1})
	if err != nil {
		c.missed(ctx, key, replica, err)
		return nil, false
	}
	defer a.Close()
	return c.readAll(a, key.Digest, a.Size, limit, fromPeer)
}

// fetchStored is Fetch from the tier.
func (c *Cluster) fetchStored(ctx context.Context, d digest.Digest, o tier.Object, limit int64) ([]byte, bool) {
	if c.cfg.Tier == nil || o.Size > limit {
		return nil, false
	}
	r, err := c.openStored(ctx, d, o, 0, o.Size)
	if err != nil {
		return nil, false
	}
	defer r.Close()
	return c.readAll(r, d, o.Size, limit, fromTier)
}

// readAll reads all size bytes of r, if they are not more than limit and have the digest.
func (c *Cluster) readAll(r io.Reader, d digest.Digest, size, limit int64, from kind) ([]byte, bool) {
	if size > limit {
		return nil, false
	}
	text := make([]byte, size)
	n, err := io.ReadFull(r, text)
	c.count.segments[from].Add(1)
	c.count.bytes[from].Add(int64(n))
	if err != nil || digest.FromBytes(text) != d {
		c.count.failed[from].Add(1)
		return nil, false
	}
	return text, true
}
