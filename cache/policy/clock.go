package policy

// CLOCK is the one-bit approximation of LRU of "A paging experiment with the Multics
// system" (Corbató, 1968): a FIFO whose oldest entry goes round once more when it was
// used since it came or last went round. An entry costs as much as in LRU, a hit only
// adds to a counter.
type CLOCK[K comparable] struct {
	nodes map[K]*node[K]
	order *list[K] // as a queue: the hand is at the back
}

// NewCLOCK returns an empty CLOCK.
func NewCLOCK[K comparable]() *CLOCK[K] {
	return &CLOCK[K]{nodes: make(map[K]*node[K]), order: newList[K]()}
}

// Add implements Policy.
func (c *CLOCK[K]) Add(key K, n int64) {
	if e := c.nodes[key]; e != nil {
		e.grow(n)
		return
	}
	e := &node[K]{key: key, size: max(n, 0)}
	c.nodes[key] = e
	c.order.pushFront(e)
}

// Touch implements Policy.
func (c *CLOCK[K]) Touch(key K, n int64) {
	if e := c.nodes[key]; e != nil {
		e.read = min(e.read+n, max(e.size, 1))
	}
}

// Remove implements Policy.
func (c *CLOCK[K]) Remove(key K) {
	if e := c.nodes[key]; e != nil {
		e.remove()
		delete(c.nodes, key)
	}
}

// Victim implements Policy. It ends because an entry that goes round counts as not
// used then.
func (c *CLOCK[K]) Victim() (key K, size int64, ok bool) {
	for e := c.order.back(); e != nil; e = c.order.back() {
		e.remove()
		if e.uses() == 0 {
			delete(c.nodes, e.key)
			return e.key, e.size, true
		}
		e.read = 0
		c.order.pushFront(e)
	}
	return key, 0, false
}

// Len implements Policy.
func (c *CLOCK[K]) Len() int { return c.order.len }

// Bytes implements Policy.
func (c *CLOCK[K]) Bytes() int64 { return c.order.bytes }
