package policy

// TwoQ is the full version of "2Q: a low overhead high performance buffer management
// replacement algorithm" (Johnson and Shasha, VLDB 1994): entries come into a FIFO of
// a quarter of the cache (A1in), in which use does not count; what leaves it is
// remembered (A1out, of entries worth half of the cache), and what comes again while
// it is remembered enters an LRU (Am). So what is read once, or several times within
// a short while, does not stay.
//
// Shares are of bytes, and of the size of the cache as newcomer learns it. An entry
// and a ghost have about 48 bytes each beside the place in a map; there are at most
// minGhosts more ghosts than entries.
type TwoQ[K comparable] struct {
	nodes map[K]*node[K]
	in    *list[K]
	main  *list[K]
	out   ghosts[K]
	guest newcomer[K]
}

const (
	inShare  = 4 // A1in is kept at one inShare-th of the cache
	outShare = 2 // A1out remembers what took one outShare-th of it
)

// NewTwoQ returns an empty 2Q.
func NewTwoQ[K comparable]() *TwoQ[K] {
	nodes := make(map[K]*node[K])
	return &TwoQ[K]{nodes: nodes, in: newList[K](), main: newList[K](), out: ghosts[K]{nodes, newList[K]()}}
}

// Expect implements Expectant.
func (q *TwoQ[K]) Expect(key K) {
	e := q.nodes[key]
	switch {
	case e == nil:
		q.guest.meet(key, unknown)
	case e.home == q.out.list:
		e.remove()
		delete(q.nodes, key)
		q.guest.meet(key, once)
	}
}

// Add implements Policy.
func (q *TwoQ[K]) Add(key K, n int64) {
	if e := q.nodes[key]; e != nil && e.home != q.out.list {
		e.grow(n)
		return
	}
	if !q.guest.pending || q.guest.key != key {
		q.Expect(key)
	}
	e := &node[K]{key: key, size: max(n, 0)}
	q.nodes[key] = e
	q.guest.arrived(e)
	if q.guest.from == unknown {
		q.in.pushFront(e)
	} else {
		q.main.pushFront(e)
	}
}

// Touch implements Policy.
func (q *TwoQ[K]) Touch(key K, n int64) {
	if e := q.nodes[key]; e != nil && e.home == q.main && e.used(n) {
		e.remove()
		q.main.pushFront(e)
	}
}

// Remove implements Policy. A ghost stays, as in S3FIFO.
func (q *TwoQ[K]) Remove(key K) {
	if e := q.nodes[key]; e != nil && e.home != q.out.list {
		q.drop(e)
	}
}

func (q *TwoQ[K]) drop(e *node[K]) {
	q.guest.forget(e)
	e.remove()
	delete(q.nodes, e.key)
}

// Victim implements Policy.
func (q *TwoQ[K]) Victim() (key K, size int64, ok bool) {
	q.guest.ask(q.Bytes())
	in, main := q.guest.oldest(q.in), q.guest.oldest(q.main)
	switch {
	case in != nil && (main == nil || q.guest.bytes(q.in)*inShare > q.guest.capacity):
		return q.bury(in)
	case main != nil:
		q.drop(main)
		return main.key, main.size, true
	case q.guest.node != nil: // all that there is
		e := q.guest.node
		q.drop(e)
		return e.key, e.size, true
	}
	return key, 0, false
}

// bury gives up e of A1in and remembers its name.
func (q *TwoQ[K]) bury(e *node[K]) (key K, size int64, ok bool) {
	e.remove()
	q.out.take(e)
	size = e.size
	for q.out.list.bytes*outShare > q.guest.capacity && q.out.drop() {
	}
	for q.out.list.len > q.Len()+minGhosts && q.out.drop() {
	}
	return e.key, size, true
}

// Len implements Policy.
func (q *TwoQ[K]) Len() int { return q.in.len + q.main.len }

// Bytes implements Policy.
func (q *TwoQ[K]) Bytes() int64 { return q.in.bytes + q.main.bytes }
