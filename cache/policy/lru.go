package policy

// LRU gives up the entry that was added to or touched longest ago.
type LRU[K comparable] struct {
	queue[K] // by when they were last touched
}

// NewLRU returns an empty LRU.
func NewLRU[K comparable]() *LRU[K] { return &LRU[K]{newQueue[K]()} }

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
