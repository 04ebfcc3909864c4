package cachechain

import (
	"context"
	"encoding/json"

	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

// Admin returns what answers an operator. about is filled in with what the chain
// knows.
func (c *Chain) Admin(about cacheadmin.Stat) *cacheadmin.Server {
	parts := cacheadmin.Parts{
		Cache: c.Cache, Index: c.Index, Permit: c.Permit, Forget: c.Forget,
		Collector: collector{c.GC}, Stat: func() cacheadmin.Stat { return c.stat(about) },
	}
	if c.Cluster == nil {
		return cacheadmin.NewServer(parts)
	}
	parts.Purged = c.Cluster.purged
	s := cacheadmin.NewServer(parts)
	c.Cluster.purge.Store(s)
	return s
}

// collector is gc.Collector with reports by name.
type collector struct{ *gc.Collector }

func (g collector) Collect(ctx context.Context) (cacheadmin.Report, error) {
	r, err := g.Collector.Collect(ctx)
	return report(r), err
}

func (g collector) Verify(ctx context.Context, progress func(done, all int)) (cacheadmin.Report, error) {
	r, err := g.Collector.Verify(ctx, progress)
	return report(r), err
}

// report returns the numbers of a report by the names they have in JSON.
func report(r gc.Report) cacheadmin.Report {
	text, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	out := make(cacheadmin.Report)
	if json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out
}

func (c *Chain) stat(s cacheadmin.Stat) cacheadmin.Stat {
	disk, served := c.Cache.Stats(), c.Handler.Stats()
	asked, allowed, filled := c.Upstream.Stats(), c.Permit.Stats(), c.Fill.Stats()
	s.Scanned = c.Cache.Scanned() && c.Index.Scanned()
	s.Bytes, s.Blobs, s.Links, s.DiskError = disk.Bytes, disk.Blobs, c.Index.Len(), disk.LastError
	s.Memory = served.Memory.Bytes
	s.Requests, s.InFlight, s.BytesSent = served.Requests, served.InFlight, served.Bytes
	s.Streaming, s.Streamers = served.Streaming, served.Streamers
	s.Outcomes = make(map[string]uint64, len(served.Outcomes))
	for o, n := range served.Outcomes {
		s.Outcomes[string(o)] = n
	}
	s.UpstreamRequests, s.UpstreamBytes, s.UpstreamErrors = asked.Requests, asked.Bytes, asked.Errors
	s.UpstreamLimited, s.WorkersBusy, s.Workers = asked.Limited+asked.Throttled, asked.WorkersBusy, asked.Workers
	s.PermissionHeads, s.PermissionHits = allowed.Heads, allowed.Hits
	s.Waiting, s.Mismatches = filled.Waiting, filled.Mismatches
	if c.Warm != nil {
		w := c.Warm.Stats()
		s.Warmed, s.WarmedBytes = w.Warmed, w.Bytes
	}
	s.Collected = report(c.GC.Stats().Report)
	if c.Cluster != nil {
		s.Cluster = c.Cluster.stat()
	}
	return s
}
