package policy

// FIFO gives up the entry that came first, used or not.
type FIFO[K comparable] struct{ queue LRU[K] }

// NewFIFO returns an empty FIFO.
func NewFIFO[K comparable]() *FIFO[K] { return &FIFO[K]{queue: *NewLRU[K]()} }

// Add implements Policy. An entry that grows stays where it is.
func (f *FIFO[K]) Add(key K, n int64) {
	if e := f.queue.nodes[key]; e != nil {
		e.grow(n)
		return
	}
	f.queue.Add(key, n)
}

// Touch implements Policy.
func (f *FIFO[K]) Touch(K, int64) {}

// Remove implements Policy.
func (f *FIFO[K]) Remove(key K) { f.queue.Remove(key) }

// Victim implements Policy.
func (f *FIFO[K]) Victim() (key K, size int64, ok bool) { return f.queue.Victim() }

// Len implements Policy.
func (f *FIFO[K]) Len() int { return f.queue.Len() }

// Bytes implements Policy.
func (f *FIFO[K]) Bytes() int64 { return f.queue.Bytes() }
