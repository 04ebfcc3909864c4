package policy

// CLOCK is the one-bit approximation of LRU of "A paging experiment with the Multics
// system" (Corbató, 1968): a FIFO whose oldest entry goes round once more when it was
// used since it came or last went round. An entry costs as much as in LRU, a hit only
// adds to a counter.
type CLOCK[K comparable] struct {
	queue[K] // the hand is at its back
}

// NewCLOCK returns an empty CLOCK.
func NewCLOCK[K comparable]() *CLOCK[K] { return &CLOCK[K]{newQueue[K]()} }

// Touch implements Policy.
func (c *CLOCK[K]) Touch(key K, n int64) { c.mark(key, n) }

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
