package simulate

// permits are the permissions that replicas remember: each its own, and all of them
// those in Redis. A permission is a client's for an object.
type permits struct {
	ttl    int64
	shared bool
	r      *clusterRunning
	known  map[permit]int64 // until when
	oldest []permitted
	all    []int64 // when those in Redis end
}

type permit struct {
	replica int32 // everybody: in Redis
	node    uint32
	id      uint32
}

const everybody = -1

type permitted struct {
	permit
	until int64
}

func newPermits(ttl int64, shared bool, r *clusterRunning) *permits {
	return &permits{ttl: ttl, shared: shared, r: r, known: make(map[permit]int64)}
}

// ask finds whether the client may have the object: it may.
func (p *permits) ask(k int32, a Access, now int64) {
	p.expire(now)
	own, all := permit{k, a.Node, a.ID}, permit{everybody, a.Node, a.ID}
	use := &p.r.cell.Permits
	if p.known[own] > now {
		use.Known++
		return
	}
	if !p.shared {
		use.Checked++
		p.grant(own, now+p.ttl)
		return
	}
	ops := &p.r.cell.Redis.Ops
	p.r.op(&ops.Granted)
	if until := p.known[all]; until > now {
		use.Granted++
		p.grant(own, until)
		return
	}
	use.Checked++
	p.r.op(&ops.Grant)
	p.grant(own, now+p.ttl)
	p.grant(all, now+p.ttl)
	p.all = append(p.all, now+p.ttl)
	x := &p.r.cell.Redis
	x.Permits = max(x.Permits, int64(len(p.all)))
}

func (p *permits) grant(x permit, until int64) {
	p.known[x] = until
	p.oldest = append(p.oldest, permitted{x, until})
}

// expire forgets what counts no more. Some of it stays behind what does, no longer than
// a permission counts.
func (p *permits) expire(now int64) {
	n := 0
	for ; n < len(p.oldest) && p.oldest[n].until <= now; n++ {
		if x := p.oldest[n]; p.known[x.permit] == x.until {
			delete(p.known, x.permit)
		}
	}
	p.oldest = p.oldest[n:]
	for n = 0; n < len(p.all) && p.all[n] <= now; n++ {
	}
	p.all = p.all[n:]
}
