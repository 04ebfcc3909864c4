package policy

// ARC is the adaptive replacement cache of "ARC: a self-tuning, low overhead
// replacement cache" (Megiddo and Modha, FAST 2003): one LRU of entries used once
// (T1), one of those used again (T2), and ghosts of either (B1, B2). What comes again
// while it is a ghost of T1 makes the share of T1 bigger, a ghost of T2 smaller. The
// patents on it have expired (US 6,996,676 in 2024).
//
// Lengths are of bytes, and the size of the cache is what newcomer learns. An entry
// and a ghost have about 48 bytes each beside the place in a map; there are at most
// minGhosts more ghosts than entries.
type ARC[K comparable] struct {
	nodes  map[K]*node[K]
	t1, t2 *list[K]
	b1, b2 ghosts[K]
	share  float64 // p: what T1 should have, in bytes
	guest  newcomer[K]
}

// NewARC returns an empty ARC.
func NewARC[K comparable]() *ARC[K] {
	nodes := make(map[K]*node[K])
	return &ARC[K]{
		nodes: nodes, t1: newList[K](), t2: newList[K](),
		b1: ghosts[K]{nodes, newList[K]()}, b2: ghosts[K]{nodes, newList[K]()},
	}
}

// ghost reports whether e is one.
func (a *ARC[K]) ghost(e *node[K]) bool { return e.home == a.b1.list || e.home == a.b2.list }

// Expect implements Expectant. A ghost shifts the share (cases II and III of the
// paper's figure 4) and is forgotten.
func (a *ARC[K]) Expect(key K) {
	e := a.nodes[key]
	if e == nil {
		a.guest.meet(key, unknown)
		return
	}
	if !a.ghost(e) {
		return
	}
	from, step, b1, b2 := once, float64(e.size), float64(a.b1.list.bytes), float64(a.b2.list.bytes)
	if e.home == a.b1.list {
		if b1 < b2 && b1 > 0 {
			step *= b2 / b1
		}
		a.share = min(a.share+step, float64(a.guest.capacity))
	} else {
		from = often
		if b2 < b1 && b2 > 0 {
			step *= b1 / b2
		}
		a.share = max(a.share-step, 0)
	}
	e.remove()
	delete(a.nodes, key)
	a.guest.meet(key, from)
}

// Add implements Policy.
func (a *ARC[K]) Add(key K, n int64) {
	if e := a.nodes[key]; e != nil && !a.ghost(e) {
		e.grow(n)
		return
	}
	if !a.guest.pending || a.guest.key != key {
		a.Expect(key)
	}
	e := &node[K]{key: key, size: max(n, 0)}
	a.nodes[key] = e
	a.guest.arrived(e)
	if a.guest.from == unknown {
		a.t1.pushFront(e)
	} else {
		a.t2.pushFront(e)
	}
}

// Touch implements Policy (case I).
func (a *ARC[K]) Touch(key K, n int64) {
	if e := a.nodes[key]; e != nil && !a.ghost(e) && e.used(n) {
		e.remove()
		a.t2.pushFront(e)
	}
}

// Remove implements Policy. A ghost stays, as in S3FIFO.
func (a *ARC[K]) Remove(key K) {
	if e := a.nodes[key]; e != nil && !a.ghost(e) {
		a.drop(e)
	}
}

func (a *ARC[K]) drop(e *node[K]) {
	a.guest.forget(e)
	e.remove()
	delete(a.nodes, e.key)
}

// Victim implements Policy.
func (a *ARC[K]) Victim() (key K, size int64, ok bool) {
	if a.guest.ask(a.Bytes()) && a.guest.from == unknown {
		a.trim()
	}
	t1, t2, held := a.guest.oldest(a.t1), a.guest.oldest(a.t2), float64(a.guest.bytes(a.t1))
	switch {
	case t1 != nil && t2 == nil && a.guest.from == unknown && a.b1.list.len == 0 && a.whole():
		a.drop(t1) // case IV, all of the cache is T1: no ghost
		return t1.key, t1.size, true
	case t1 != nil && (t2 == nil || held > a.share || a.guest.from == often && held == a.share):
		return a.bury(t1, a.b1)
	case t2 != nil:
		return a.bury(t2, a.b2)
	case a.guest.node != nil: // all that there is
		e := a.guest.node
		a.drop(e)
		return e.key, e.size, true
	}
	return key, 0, false
}

// whole reports whether T1 fills the cache.
func (a *ARC[K]) whole() bool { return a.guest.bytes(a.t1) >= a.guest.capacity }

// trim makes place in the directory for a name that is not in it (case IV): T1 and B1
// are as much as the cache holds at most, all lists twice that.
func (a *ARC[K]) trim() {
	c, n := a.guest.capacity, int64(1)
	if a.guest.node != nil {
		n = max(n, a.guest.node.size)
	}
	once := a.guest.bytes(a.t1)
	if once+a.b1.list.bytes+n > c {
		for once+a.b1.list.bytes+n > c && a.b1.drop() {
		}
		return
	}
	for once+a.guest.bytes(a.t2)+a.b1.list.bytes+a.b2.list.bytes+n > 2*c && a.b2.drop() {
	}
}

// bury gives up e and remembers its name.
func (a *ARC[K]) bury(e *node[K], to ghosts[K]) (key K, size int64, ok bool) {
	e.remove()
	to.take(e)
	for a.b1.list.len+a.b2.list.len > a.Len()+minGhosts {
		longer := a.b1
		if a.b2.list.len > a.b1.list.len {
			longer = a.b2
		}
		longer.drop()
	}
	return e.key, e.size, true
}

// Len implements Policy.
func (a *ARC[K]) Len() int { return a.t1.len + a.t2.len }

// Bytes implements Policy.
func (a *ARC[K]) Bytes() int64 { return a.t1.bytes + a.t2.bytes }
