package blob

import "context"

// Priority orders reads that compete for a connection.
type Priority int

const (
	// Demand is a read somebody waits for: an application, an index load.
	Demand Priority = iota
	// Background is a read nobody waits for: readahead, prefetch, download.
	Background
)

type priorityKey struct{}

// WithPriority returns a context whose reads have priority p.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority of reads under ctx, Demand unless set.
func PriorityOf(ctx context.Context) Priority {
	p, _ := ctx.Value(priorityKey{}).(Priority)
	return p
}
