package policy

// LRU gives up the entry that was added to or touched longest ago.
type LRU[K comparable] struct {
	nodes map[K]*node[K]
	order *list[K]
}

// NewLRU returns an empty LRU.
func NewLRU[K comparable]() *LRU[K] {
	return &LRU[K]{nodes: make(map[K]*node[K]), order: newList[K]()}
}

// Add implements Policy.
func (l *LRU[K]) Add(key K, n int64) {
	e := l.nodes[key]
	if e == nil {
		e = &node[K]{key: key, size: max(n, 0)}
		l.nodes[key] = e
		l.order.pushFront(e)
		return
	}
	e.grow(n)
	if n > 0 {
		l.toFront(e)
	}
}

// Touch implements Policy.
func (l *LRU[K]) Touch(key K, _ int64) {
	if e := l.nodes[key]; e != nil {
		l.toFront(e)
	}
}

func (l *LRU[K]) toFront(e *node[K]) {
	if e.prev == &l.order.root {
		return
	}
	e.remove()
	l.order.pushFront(e)
}

// Remove implements Policy.
func (l *LRU[K]) Remove(key K) {
	if e := l.nodes[key]; e != nil {
		e.remove()
		delete(l.nodes, key)
	}
}

// Victim implements Policy.
func (l *LRU[K]) Victim() (key K, size int64, ok bool) {
	e := l.order.back()
	if e == nil {
		return key, 0, false
	}
	e.remove()
	delete(l.nodes, e.key)
	return e.key, e.size, true
}

// Len implements Policy.
func (l *LRU[K]) Len() int { return l.order.len }

// Bytes implements Policy.
func (l *LRU[K]) Bytes() int64 { return l.order.bytes }
