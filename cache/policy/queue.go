package policy

// queue is entries in the order in which they came: one that grows stays where it is.
// It has what policies with one list have in common.
type queue[K comparable] struct {
	nodes map[K]*node[K]
	order *list[K]
}

func newQueue[K comparable]() queue[K] {
	return queue[K]{nodes: make(map[K]*node[K]), order: newList[K]()}
}

// Add implements Policy.
func (q *queue[K]) Add(key K, n int64) {
	if e := q.nodes[key]; e != nil {
		e.grow(n)
		return
	}
	e := &node[K]{key: key, size: max(n, 0)}
	q.nodes[key] = e
	q.order.pushFront(e)
}

// mark notes that n bytes of an entry were read, up to all of it.
func (q *queue[K]) mark(key K, n int64) {
	if e := q.nodes[key]; e != nil {
		e.read = min(e.read+n, max(e.size, 1))
	}
}

// Remove implements Policy.
func (q *queue[K]) Remove(key K) {
	if e := q.nodes[key]; e != nil {
		q.drop(e)
	}
}

func (q *queue[K]) drop(e *node[K]) {
	e.remove()
	delete(q.nodes, e.key)
}

// Victim implements Policy: it is the oldest.
func (q *queue[K]) Victim() (key K, size int64, ok bool) {
	e := q.order.back()
	if e == nil {
		return key, 0, false
	}
	q.drop(e)
	return e.key, e.size, true
}

// Len implements Policy.
func (q *queue[K]) Len() int { return q.order.len }

// Bytes implements Policy.
func (q *queue[K]) Bytes() int64 { return q.order.bytes }
