package lsmt

import (
	"context"
	"slices"
	"sync"
)

// rangeLock lets those wait who want to change the same range of the disk.
type rangeLock struct {
	mu   sync.Mutex
	held []*heldRange
}

type heldRange struct {
	start, end int64
	free       chan struct{} // closed by unlock
}

// lock waits until nobody has a part of the range from start up to end, and
// has it until unlock is called.
func (l *rangeLock) lock(ctx context.Context, start, end int64) (unlock func(), err error) {
	own := &heldRange{start: start, end: end, free: make(chan struct{})}
	for {
		other := l.try(own)
		if other == nil {
			return func() { l.unlock(own) }, nil
		}
		select {
		case <-other.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// try returns one of those that are in the way.
func (l *rangeLock) try(own *heldRange) *heldRange {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.held {
		if own.start < other.end && other.start < own.end {
			return other
		}
	}
	l.held = append(l.held, own)
	return nil
}

func (l *rangeLock) unlock(own *heldRange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.held, own)
	l.held = slices.Delete(l.held, i, i+1)
	close(own.free)
}
