package policy

// SIEVE is the policy of "SIEVE is simpler than LRU" (Zhang et al., NSDI 2024): a
// FIFO with a hand that goes from the oldest entry to the newest, spares each entry
// that was used since it last came by, and gives up the first that was not. What is
// spared stays where it is, so that new entries that nobody uses again are found
// soon. It does not withstand scans.
type SIEVE[K comparable] struct {
	queue[K]
	hand *node[K] // where to look next; nil: at the oldest
}

// NewSIEVE returns an empty SIEVE.
func NewSIEVE[K comparable]() *SIEVE[K] { return &SIEVE[K]{queue: newQueue[K]()} }

// Touch implements Policy.
func (s *SIEVE[K]) Touch(key K, n int64) { s.mark(key, n) }

// Remove implements Policy.
func (s *SIEVE[K]) Remove(key K) {
	if e := s.nodes[key]; e != nil {
		s.drop(e)
	}
}

// drop takes e out; the hand goes on to the next newer entry.
func (s *SIEVE[K]) drop(e *node[K]) {
	if s.hand == e {
		s.hand = s.newer(e)
	}
	s.queue.drop(e)
}

// newer returns the entry that came after e, nil at the newest.
func (s *SIEVE[K]) newer(e *node[K]) *node[K] {
	if e.prev == &s.order.root {
		return nil
	}
	return e.prev
}

// Victim implements Policy. It ends because each turn spares an entry that then
// counts as not used.
func (s *SIEVE[K]) Victim() (key K, size int64, ok bool) {
	e := s.hand
	for {
		if e == nil {
			if e = s.order.back(); e == nil {
				return key, 0, false
			}
		}
		if e.uses() == 0 {
			break
		}
		e.read = 0
		e = s.newer(e)
	}
	s.hand = e
	s.drop(e)
	return e.key, e.size, true
}
