package policy

// FIFO gives up the entry that came first, used or not.
type FIFO[K comparable] struct{ queue[K] }

// NewFIFO returns an empty FIFO.
func NewFIFO[K comparable]() *FIFO[K] { return &FIFO[K]{newQueue[K]()} }

// Touch implements Policy.
func (f *FIFO[K]) Touch(K, int64) {}
