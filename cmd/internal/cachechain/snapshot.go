package cachechain

import "github.com/reprise-containers/reprise/cmd/internal/metrics"

// Snapshot returns what all parts count.
func (c *Chain) Snapshot() metrics.CacheSnapshot {
	s := metrics.CacheSnapshot{
		Proxy: c.Handler.Stats(), Permit: c.Permit.Stats(), Upstream: c.Upstream.Stats(), Fill: c.Fill.Stats(),
		Cache: c.Cache.Stats(), GC: c.GC.Stats(), Links: c.Index.Len(), Scanned: c.Cache.Scanned() && c.Index.Scanned(),
	}
	if c.Warm != nil {
		s.Warm = c.Warm.Stats()
	}
	if c.Cluster != nil {
		shared := c.Cluster.Stats()
		s.Cluster = &shared
	}
	return s
}
