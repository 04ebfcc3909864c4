package simulate

import "math"

// miss gets the replica what it does not have.
func (r *clusterRunning) miss(k int32, id uint32, size int64) {
	if r.c.NoRedis {
		r.missAlone(k, id, size)
		return
	}
	r.op(&r.cell.Redis.Ops.Locate)
	e := r.index.blobs[id]
	if e != nil && (len(e.holders) > 0 || e.stored) && e.expires-r.now < int64(r.c.Keep)/2 {
		r.remember(id, e) // that is not written at each question
	}
	if e != nil && e.lease {
		r.follow(k, id, size, e)
		return
	}
	tried, ok := r.fromPeers(k, id, size)
	if ok {
		return
	}
	lost := false // by L2, although the index knows it there
	if e != nil && e.stored {
		if r.l2.has(id) {
			r.fromTier(k, id, size, taken)
			return
		}
		lost = true
		r.cell.Tier.Missed++
		r.op(&r.cell.Redis.Ops.Unpublish)
		e.stored = false
		r.index.tidy(id)
	}
	if tried || lost { // once more, for a lease
		r.op(&r.cell.Redis.Ops.Locate)
	}
	r.lead(k, id, size, r.l2 != nil && !lost && size >= worthFinding)
}

// missAlone is miss without an index.
func (r *clusterRunning) missAlone(k int32, id uint32, size int64) {
	if r.l2 != nil {
		r.cell.Tier.Lists++
		if r.l2.has(id) {
			r.fromTier(k, id, size, unleased)
			return
		}
	}
	r.fromUpstream(k, id, size, unleased)
}

// follow reads what another replica fetches under a lease.
func (r *clusterRunning) follow(k int32, id uint32, size int64, e *indexed) {
	if r.c.NoPeers {
		r.fromUpstream(k, id, size, unleased)
		return
	}
	r.cell.Followed.add(size)
	r.between(e.fetcher, k, size)
	r.fetch(k, id, taken, max(e.ends, r.now+r.c.Peer.takes(size)))
}

// fromPeers fetches the object from one of those who are said to have it, and reports
// whether there were any, and whether one did.
func (r *clusterRunning) fromPeers(k int32, id uint32, size int64) (tried, ok bool) {
	after := int64(math.MinInt64)
	if r.c.Keep > 0 {
		after = r.now - int64(r.c.Keep)
	}
	for _, h := range r.index.newest(id, k, after) {
		if r.ready(h, id) {
			r.cell.Peers.add(size)
			r.between(h, k, size)
			r.fetch(k, id, taken, r.now+r.c.Peer.takes(size))
			return true, true
		}
		tried = true
		r.cell.Redis.Stale++
		if !r.l1[h].has(id) {
			r.dropped(id, h)
		}
	}
	return tried, false
}

// worthFinding is from how many bytes on the tier's list is looked at under a lease, in
// package cluster.
const worthFinding = 1 << 20

// lead fetches the object under a lease: from L2, if that is looked through and has it.
func (r *clusterRunning) lead(k int32, id uint32, size int64, look bool) {
	e := r.index.of(id)
	e.lease, e.fetcher = true, k
	r.tokens.add(r.now, 1)
	if look {
		r.cell.Tier.Lists++
	}
	if look && r.l2.has(id) {
		r.fromTier(k, id, size, leased)
	} else {
		r.fromUpstream(k, id, size, leased)
	}
	e.ends = r.filling[fetching{k, id}]
	r.cell.Redis.Ops.Renew += r.renewals(e.ends - r.now)
}

// ready reports whether the replica has all of the object.
func (r *clusterRunning) ready(k int32, id uint32) bool {
	_, filling := r.filling[fetching{k, id}]
	return !filling && r.l1[k].has(id)
}

func (r *clusterRunning) fromTier(k int32, id uint32, size int64, how ending) {
	r.cell.Stored.add(size)
	r.cell.Tier.Gets++
	r.fetch(k, id, how, r.now+r.c.Tier.takes(size))
}

func (r *clusterRunning) fromUpstream(k int32, id uint32, size int64, how ending) {
	r.cell.Fetched.add(size)
	r.fetch(k, id, how, r.now+r.c.Upstream.takes(size))
}
