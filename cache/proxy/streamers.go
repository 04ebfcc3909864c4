package proxy

import (
	"context"
	"sync/atomic"
	"time"
)

// streamers bounds the bodies that are sent at a time.
type streamers struct {
	slots    chan struct{}
	queueFor time.Duration
	waiting  atomic.Int64
	refused  atomic.Uint64
}

func newStreamers(n int, queueFor time.Duration) *streamers {
	return &streamers{slots: make(chan struct{}, n), queueFor: queueFor}
}

// enter waits for a slot, for queueFor at most, and reports whether there was
// one; then leave must be called.
func (s *streamers) enter(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	timer := time.NewTimer(s.queueFor)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	s.refused.Add(1)
	return false
}

func (s *streamers) leave() { <-s.slots }
