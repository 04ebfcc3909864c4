package blob

import (
	"context"
	"sync/atomic"
)

// Priority orders reads that compete for a connection.
type Priority int

const (
	// Demand is a read somebody waits for: an application, an index load.
	Demand Priority = iota
	// Background is a read nobody waits for: readahead, prefetch, download.
	Background
)

// String returns "demand" or "background", the names used in metrics.
func (p Priority) String() string {
	if p == Background {
		return "background"
	}
	return "demand"
}

type priorityKey struct{}

// WithPriority returns a context whose reads have priority p.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority that reads under ctx have now, Demand unless
// set. Under a context made by WithRaisable it may differ from call to call.
func PriorityOf(ctx context.Context) Priority {
	switch v := ctx.Value(priorityKey{}).(type) {
	case Priority:
		return v
	case *Raisable:
		return v.Priority()
	}
	return Demand
}

// Raisable is the priority of a read that may become urgent while it is under
// way, because somebody started to wait for it. Its methods may be called in
// parallel.
type Raisable struct {
	demand atomic.Bool
	raised chan struct{}
}

// WithRaisable returns a context whose reads have priority p until the
// returned Raisable is raised.
func WithRaisable(ctx context.Context, p Priority) (context.Context, *Raisable) {
	r := &Raisable{raised: make(chan struct{})}
	if p == Demand {
		r.Raise()
	}
	return context.WithValue(ctx, priorityKey{}, r), r
}

// Raise makes the read a Demand read, for good.
func (r *Raisable) Raise() {
	if r.demand.CompareAndSwap(false, true) {
		close(r.raised)
	}
}

// Priority returns the priority the read has now.
func (r *Raisable) Priority() Priority {
	if r.demand.Load() {
		return Demand
	}
	return Background
}

// Raised returns a channel that is closed once the reads under ctx are Demand
// reads, or nil (which blocks for ever) if their priority never changes. Who
// queues a background read selects on it.
func Raised(ctx context.Context) <-chan struct{} {
	if r, ok := ctx.Value(priorityKey{}).(*Raisable); ok {
		return r.raised
	}
	return nil
}
