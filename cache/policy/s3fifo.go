package policy

// S3FIFO is a scan-resistant policy after "FIFO queues are all you need for
// cache eviction" (Yang et al., SOSP 2023): a small FIFO on probation, a main
// FIFO for entries that proved useful, and the names of entries that left the
// small one recently (ghosts).
//
// New entries enter the small queue. At its end an entry that was read again
// moves to the main queue, any other is given up and leaves a ghost; an entry
// added while its ghost is remembered goes straight to the main queue. At the
// end of the main queue an entry that was read again goes round once more.
// So a scan, which reads everything once, passes through a tenth of the
// cache and leaves the rest alone.
//
// It was chosen over SIEVE, which is simpler but whose authors say that it
// does not resist scans, and over ARC and LIRS, whose hits reorder lists. Here
// a hit only adds to a counter of the entry.
//
// Two departures from the paper follow from sized entries that grow: use is
// counted in bytes read over the entry's size (see the package comment), and
// the small queue's share is taken of the bytes held, so that the policy does
// not need to know a capacity.
type S3FIFO[K comparable] struct {
	nodes map[K]*node[K]
	small *list[K]
	main  *list[K]
	ghost *list[K]
}

const (
	smallShare = 10 // the small queue is kept at one smallShare-th of the bytes
	maxUses    = 3  // more uses than this make no difference
	minGhosts  = 64 // keep at least these, so that tiny caches learn too
)

// NewS3FIFO returns an empty S3FIFO.
func NewS3FIFO[K comparable]() *S3FIFO[K] {
	return &S3FIFO[K]{
		nodes: make(map[K]*node[K]),
		small: newList[K](),
		main:  newList[K](),
		ghost: newList[K](),
	}
}

// Add implements Policy.
func (s *S3FIFO[K]) Add(key K, n int64) {
	e := s.nodes[key]
	switch {
	case e == nil:
		e = &node[K]{key: key, size: max(n, 0)}
		s.nodes[key] = e
		s.small.pushFront(e)
	case e.home == s.ghost:
		e.remove()
		e.size, e.read = max(n, 0), 0
		s.main.pushFront(e)
	default:
		e.grow(n)
	}
}

// Touch implements Policy.
func (s *S3FIFO[K]) Touch(key K, n int64) {
	if e := s.nodes[key]; e != nil && e.home != s.ghost {
		e.read = min(e.read+n, maxUses*e.size)
	}
}

// Remove implements Policy. A ghost stays: it is no entry, and the cache settles
// what it gave up with this too.
func (s *S3FIFO[K]) Remove(key K) {
	if e := s.nodes[key]; e != nil && e.home != s.ghost {
		e.remove()
		delete(s.nodes, key)
	}
}

// Victim implements Policy. It ends because every turn gives up an entry,
// moves one from small to main for good, or uses up a use.
func (s *S3FIFO[K]) Victim() (key K, size int64, ok bool) {
	for s.small.len+s.main.len > 0 {
		if s.main.len == 0 || s.small.bytes*smallShare > s.Bytes() {
			if e := s.small.back(); e != nil {
				if e.uses() == 0 {
					return s.bury(e)
				}
				e.remove()
				e.read = 0
				s.main.pushFront(e)
				continue
			}
		}
		e := s.main.back()
		if e == nil {
			return s.bury(s.small.back())
		}
		e.remove()
		if e.uses() == 0 {
			delete(s.nodes, e.key)
			return e.key, e.size, true
		}
		e.read = max(0, e.read-e.size)
		s.main.pushFront(e)
	}
	return key, 0, false
}

// bury gives up e of the small queue and remembers its name.
func (s *S3FIFO[K]) bury(e *node[K]) (key K, size int64, ok bool) {
	size = e.size
	e.remove()
	s.ghost.pushFront(e)
	for s.ghost.len > max(s.small.len+s.main.len, minGhosts) {
		g := s.ghost.back()
		g.remove()
		delete(s.nodes, g.key)
	}
	return e.key, size, true
}

// Len implements Policy.
func (s *S3FIFO[K]) Len() int { return s.small.len + s.main.len }

// Bytes implements Policy.
func (s *S3FIFO[K]) Bytes() int64 { return s.small.bytes + s.main.bytes }
