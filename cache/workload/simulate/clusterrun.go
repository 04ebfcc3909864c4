package simulate

import (
	"container/heap"
	"context"
	"math"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
)

// clusterRunning is a cluster in the middle of a trace.
type clusterRunning struct {
	d       *Decoded
	c       Cluster
	cell    *ClusterCell
	l1      []*nodeStore
	l2      *nodeStore // nil: there is none
	index   *sharedIndex
	permits *permits           // nil: not simulated
	filling map[fetching]int64 // when it ends
	agenda  agenda
	seq     uint64
	n       int   // requests
	first   int64 // time of the first
	last    int64
	now     int64
	redis   busiest
	tokens  busiest
	asked   []uint64  // requests of each replica
	sent    []int64   // bytes of each replica to others
	took    []int64   // of each from others
	sending []busiest // of each
}

// fetching is what a replica is fetching.
type fetching struct {
	replica int32
	id      uint32
}

func beginCluster(d *Decoded, c Cluster, cell *ClusterCell) (*clusterRunning, error) {
	c = c.withDefaults()
	c.NoRedis = c.NoRedis || !cell.Shared
	c.NoPeers = c.NoPeers || c.NoRedis
	n := cell.Replicas
	r := &clusterRunning{
		d: d, c: c, cell: cell, filling: make(map[fetching]int64), index: newSharedIndex(&cell.Redis),
		redis: busiest{window: int64(time.Second)}, tokens: busiest{window: int64(time.Hour)}, asked: make([]uint64, n), sent: make([]int64, n), took: make([]int64, n), sending: make([]busiest, n),
	}
	for i := range n {
		s, err := newNodeStore(cell.Policy, cell.L1)
		if err != nil {
			return nil, err
		}
		if c.DropEvicted && !c.NoPeers {
			s.onEvict = func(id uint32) { r.dropped(id, int32(i)) } //nolint:gosec // no more than MaxReplicas
		}
		r.l1 = append(r.l1, s)
		r.sending[i].window = int64(time.Minute)
	}
	if c.PermissionTTL > 0 {
		r.permits = newPermits(int64(c.PermissionTTL), !c.NoRedis, r)
	}
	if cell.L2 == 0 {
		return r, nil
	}
	var err error
	if r.l2, err = newNodeStore(policy.NameFIFO, cell.L2); err != nil { // the tier's sweep takes the oldest
		return nil, err
	}
	return r, nil
}

// clusterOver runs a cluster over the trace.
func clusterOver(ctx context.Context, d *Decoded, c Cluster, cell *ClusterCell) error {
	r, err := beginCluster(d, c, cell)
	if err != nil {
		return err
	}
	for _, a := range d.Accesses.during(ctx) {
		r.access(a)
	}
	r.end()
	return ctx.Err()
}

// access is a request.
func (r *clusterRunning) access(a Access) {
	at := max(r.now, a.Time)
	if r.c.Rate > 0 {
		at = int64(float64(r.n) / r.c.Rate * 1e9)
	}
	if r.n == 0 {
		r.first = at
	}
	r.until(at)
	r.now, r.last = at, at
	k := r.pick(a)
	r.n++
	size := r.d.Sizes[a.ID]
	r.asked[k]++
	r.cell.All.add(size)
	if r.permits != nil {
		r.permits.ask(k, a, at)
	}
	_, filling := r.filling[fetching{k, a.ID}]
	hit := r.l1[k].get(a.ID, size)
	switch {
	case filling:
		r.cell.Joined.add(size)
	case hit:
		r.cell.Hits.add(size)
	default:
		r.miss(k, a.ID, size)
	}
}

// pick returns the replica that is asked.
func (r *clusterRunning) pick(a Access) int32 {
	n := uint64(len(r.l1))
	switch r.c.Spread {
	case ByTurn:
		return int32(uint64(r.n) % n) //nolint:gosec // both are small
	case ByHash:
		return int32(scatter(uint64(a.ID)) % n) //nolint:gosec // n is small
	default:
		return int32(scatter(uint64(a.Node)) % n) //nolint:gosec // n is small
	}
}

// scatter is the last step of SplitMix64: numbers in a row become as good as random.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// renewals returns how often a lease is renewed that is held so long.
func (r *clusterRunning) renewals(took int64) uint64 {
	third := int64(r.c.LeaseTTL / 3)
	return uint64(max(0, (took-1)/third)) //nolint:gosec // positive
}

// fetch has the replica fetch the object until a time.
func (r *clusterRunning) fetch(k int32, id uint32, what ending, ends int64) {
	r.filling[fetching{k, id}] = ends
	r.later(k, id, what, ends)
}

// later puts something on the agenda, and returns its number.
func (r *clusterRunning) later(k int32, id uint32, what ending, at int64) uint64 {
	r.seq++
	heap.Push(&r.agenda, due{at: at, seq: r.seq, replica: k, id: id, what: what})
	return r.seq
}

// between counts what one replica sends to another.
func (r *clusterRunning) between(from, to int32, size int64) {
	r.cell.Between.Bytes += size
	r.sent[from] += size
	r.took[to] += size
	r.sending[from].add(r.now, size)
}

// op counts one on the index.
func (r *clusterRunning) op(of *uint64) {
	*of++
	r.redis.add(r.now, 1)
}

// dropped tells the index that a replica has not what it was thought to have.
func (r *clusterRunning) dropped(id uint32, k int32) {
	if r.index.drop(id, k) {
		r.op(&r.cell.Redis.Ops.Drop)
	}
}

// until has happen what ends until a time.
func (r *clusterRunning) until(at int64) {
	for {
		e, ok := r.agenda.next(at)
		if !ok {
			break
		}
		r.now = e.at
		r.ended(e)
	}
}

// remember has the index know of an object from now on, for as long as it keeps that.
func (r *clusterRunning) remember(id uint32, e *indexed) {
	if r.c.Keep <= 0 {
		return
	}
	e.expires = r.now + int64(r.c.Keep)
	if e.forget == 0 {
		e.forget = r.later(0, id, unheard, e.expires)
	}
}

// unheard has the index forget an object that it did not hear of for too long.
func (r *clusterRunning) unheard(d due) {
	e := r.index.blobs[d.id]
	if e == nil || e.forget != d.seq {
		return
	}
	e.forget = 0
	if e.expires > r.now {
		e.forget = r.later(0, d.id, unheard, e.expires)
		return
	}
	r.index.lose(d.id)
}

// ended does what comes after what was on the agenda.
func (r *clusterRunning) ended(d due) {
	switch d.what {
	case written:
		r.published(d.id)
		return
	case unheard:
		r.unheard(d)
		return
	case again:
		r.share(d.replica, d.id)
		return
	}
	delete(r.filling, fetching{d.replica, d.id})
	if d.what == leased {
		r.op(&r.cell.Redis.Ops.Release)
		r.index.blobs[d.id].lease = false
		r.index.tidy(d.id)
	}
	r.share(d.replica, d.id)
}

// share tells the others what a replica has, and writes it to L2 unless it is there or
// somebody is at it. Who may write it looks at the list before.
func (r *clusterRunning) share(k int32, id uint32) {
	if !r.l1[k].has(id) {
		return
	}
	if !r.c.NoPeers {
		r.op(&r.cell.Redis.Ops.Hold)
		r.remember(id, r.index.hold(id, k, r.now))
	}
	size := r.d.Sizes[id]
	if r.l2 == nil || size > r.l2.capacity {
		return
	}
	took := r.c.Tier.takes(size)
	if r.c.NoRedis {
		r.cell.Tier.Lists++
		if !r.l2.has(id) {
			r.later(k, id, written, r.now+took)
		}
		return
	}
	r.op(&r.cell.Redis.Ops.Claim)
	e := r.index.of(id)
	if e.claimed || e.stored {
		r.op(&r.cell.Redis.Ops.Look)
		if !e.stored { // who is at it may not come to an end
			r.later(k, id, again, r.now+int64(r.c.LeaseTTL)*3/2)
		}
		return
	}
	r.tokens.add(r.now, 1)
	r.cell.Tier.Lists++ // the index may have forgotten what is there
	if r.l2.has(id) {
		r.op(&r.cell.Redis.Ops.Publish)
		e.stored = true
		r.remember(id, e)
		return
	}
	e.claimed = true
	r.cell.Redis.Ops.RenewClaim += r.renewals(took)
	r.later(k, id, written, r.now+took)
}

// published is told of what was written to L2.
func (r *clusterRunning) published(id uint32) {
	size := r.d.Sizes[id]
	r.cell.Tier.Puts++
	r.cell.Tier.Written += size
	if !r.c.NoRedis {
		r.op(&r.cell.Redis.Ops.Publish)
		e := r.index.of(id)
		e.claimed, e.stored = false, true
		r.remember(id, e)
	}
	r.l2.get(id, size) // without claims, it may be there
	r.cell.Redis.Objects = max(r.cell.Redis.Objects, int64(r.l2.policy.Len()))
}

// fit is of streamed.
func (r *clusterRunning) fit(grown []growth) {
	for _, g := range grown {
		for _, s := range r.l1 {
			s.grow(g.id, g.from, g.to)
		}
		if r.l2 != nil {
			r.l2.grow(g.id, g.from, g.to)
		}
	}
}

// end lets what is under way end, and sums up.
func (r *clusterRunning) end() {
	c := r.cell
	c.Span = time.Duration(r.last - r.first)
	r.until(math.MaxInt64)
	for _, s := range r.l1 {
		c.Evicted += s.evicted
	}
	c.Unique = r.d.Bytes()
	if r.l2 != nil {
		c.Tier.Removes = r.l2.evicted
	}
	c.Busiest = slices.Max(r.asked)
	c.Redis.Busiest, c.Redis.Tokens = r.redis.max, r.tokens.max
	c.Between.Sent, c.Between.Taken = slices.Max(r.sent), slices.Max(r.took)
	for _, b := range r.sending {
		c.Between.Peak = max(c.Between.Peak, b.max/60)
	}
	if r.c.NoRedis {
		c.Redis.Objects = 0
		return
	}
	c.Redis.Idle = float64(c.Replicas) * (1/r.c.Beat.Seconds() + 1/followed.Seconds())
	m := r.c.Memory
	x := &c.Redis
	x.Memory = x.Blobs*m.Blob + max(0, x.Holders-x.Blobs)*m.Holder + x.Objects*m.Stored + x.Tokens*m.Token + x.Permits*m.Permit
}
