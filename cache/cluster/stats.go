package cluster

import (
	"sync/atomic"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// From is what came from one kind of place.
type From struct {
	Segments int64 // parts of blobs that were read there, by one request each
	Bytes    int64
	Failed   int64 // of the segments, or before they began
}

// Stats is a snapshot of what a replica's part in the cluster did.
type Stats struct {
	Peers, Tier, Upstream From

	Leases       int   // under which something is fetched at the moment
	Fenced       int64 // leases and claims that somebody else had in the end
	Alone        int64 // segments for which the index was not reached
	Asked        int64 // by peers, for something that was there
	Given        int64 // bytes, to peers
	Written      int64 // blobs, to the tier
	WrittenBytes int64
	Unwritten    int64 // that could not be written
	Queue        int   // blobs that wait to be told and written
	Dropped      int64 // that found no room there
	Damaged      int64 // objects of the tier
	Swept        int64 // objects of the tier

	HasIndex bool
	Index    sharedindex.Stats
	HasTier  bool
	Shared   tier.Stats
}

type counters struct {
	segments, bytes, failed          [kinds]atomic.Int64
	fenced, alone, asked, given      atomic.Int64
	written, writtenBytes, unwritten atomic.Int64
	dropped, damaged, swept          atomic.Int64
}

func (n *counters) from(k kind) From {
	return From{Segments: n.segments[k].Load(), Bytes: n.bytes[k].Load(), Failed: n.failed[k].Load()}
}

// Stats returns the counters. They are read one by one, not at one moment.
func (c *Cluster) Stats() Stats {
	n := &c.count
	s := Stats{
		Peers: n.from(fromPeer), Tier: n.from(fromTier), Upstream: n.from(fromUpstream),
		Fenced: n.fenced.Load(), Alone: n.alone.Load(), Asked: n.asked.Load(), Given: n.given.Load(),
		Written: n.written.Load(), WrittenBytes: n.writtenBytes.Load(), Unwritten: n.unwritten.Load(),
		Queue: len(c.queue), Dropped: n.dropped.Load(), Damaged: n.damaged.Load(), Swept: n.swept.Load(),
	}
	leases, _ := c.held()
	s.Leases = len(leases)
	if c.cfg.Index != nil {
		s.HasIndex, s.Index = true, c.cfg.Index.Stats()
	}
	if c.cfg.Tier != nil {
		s.HasTier, s.Shared = true, c.cfg.Tier.Stats()
	}
	return s
}
