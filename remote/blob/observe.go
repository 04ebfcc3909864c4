package blob

import (
	"context"
	"time"
)

// Observer is told about reads. It is called in parallel, on the reading
// goroutine, so it must be quick.
type Observer interface {
	// ObserveRead is called after a read that delivered n bytes in the time
	// took and ended with err (io.EOF included), at the priority the read
	// has at its end.
	ObserveRead(n int, took time.Duration, err error, p Priority)
}

// ObserverFunc is a function used as an Observer.
type ObserverFunc func(n int, took time.Duration, err error, p Priority)

// ObserveRead implements Observer.
func (f ObserverFunc) ObserveRead(n int, took time.Duration, err error, p Priority) {
	f(n, took, err, p)
}

type observed struct {
	passthrough
	o Observer
}

// Observe returns b with every read reported to o.
func Observe(b Blob, o Observer) Blob {
	return &observed{passthrough{b}, o}
}

// ReadAt implements ReaderAt.
func (r *observed) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	start := time.Now()
	n, err := r.Blob.ReadAt(ctx, p, off)
	r.o.ObserveRead(n, time.Since(start), err, PriorityOf(ctx))
	return n, err
}
