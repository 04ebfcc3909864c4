package blob

import "context"

type transientKey struct{}

// WithTransient returns a context whose reads are of bytes that are needed once,
// such as those of a download that stores them itself: a cache serves what it
// has and keeps nothing that it has not.
func WithTransient(ctx context.Context) context.Context {
	return context.WithValue(ctx, transientKey{}, true)
}

// Transient reports whether reads under ctx are to be kept by no cache.
func Transient(ctx context.Context) bool { return ctx.Value(transientKey{}) != nil }
