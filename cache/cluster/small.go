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
	b := &body{s: &source{c: c, key: sharedindex.Key{Digest: d}}, ctx: ctx, end: limit}
	defer b.Close()
	text, ok := b.small(limit)
	if !ok || digest.FromBytes(text) != d {
		return nil, false
	}
	return text, true
}

// small reads a blob whose size is not known, from those who have the whole.
func (b *body) small(limit int64) ([]byte, bool) {
	c := b.s.c
	d := b.s.key.Digest
	if c.cfg.Index == nil {
		if c.cfg.Tier == nil {
			return nil, false
		}
		o, found, err := c.cfg.Tier.Find(b.ctx, d)
		return b.smallOf(d, o, found && err == nil, limit)
	}
	place, err := c.cfg.Index.Look(b.ctx, b.s.key)
	if err != nil {
		return nil, false
	}
	for _, replica := range place.Holders {
		if c.reachable(replica) != nil {
			continue
		}
		a, err := c.cfg.Peers.Open(b.ctx, replica, peer.Request{Digest: d, End: -1})
		if err != nil {
			c.missed(b.ctx, b.s.key, replica, err)
			continue
		}
		text, ok := c.readAll(a, a.Size, limit, fromPeer)
		a.Close()
		if ok {
			return text, true
		}
	}
	if o := place.Stored; o != nil {
		return b.smallOf(d, tier.Object{Generation: o.Generation, Size: o.Size}, true, limit)
	}
	return nil, false
}

// smallOf reads an object of the tier.
func (b *body) smallOf(d digest.Digest, o tier.Object, found bool, limit int64) ([]byte, bool) {
	c := b.s.c
	if c.cfg.Tier == nil || !found || o.Size > limit {
		return nil, false
	}
	r, err := c.cfg.Tier.Open(b.ctx, d, o, 0, o.Size)
	if err != nil {
		c.lost(b.ctx, d, o, err)
		return nil, false
	}
	defer r.Close()
	return c.readAll(&watched{r, b, o}, o.Size, limit, fromTier)
}

// readAll reads all size bytes of r, if they are not more than limit.
func (c *Cluster) readAll(r io.Reader, size, limit int64, from kind) ([]byte, bool) {
	if size > limit {
		return nil, false
	}
	text := make([]byte, size)
	n, err := io.ReadFull(r, text)
	c.count.segments[from].Add(1)
	c.count.bytes[from].Add(int64(n))
	if err != nil {
		c.count.failed[from].Add(1)
	}
	return text, err == nil
}
