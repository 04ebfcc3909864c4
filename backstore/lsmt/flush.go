package lsmt

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// flusher lets flushes that wait for the same thing share it.
type flusher struct {
	mu       sync.Mutex
	started  int64         // flushes that were begun
	finished int64         // the last one that ended
	err      error         // how it did
	ended    chan struct{} // closed when the one at work ends; nil if none is
	failed   error         // the first lastingError
	count    atomic.Int64  // flushes that were made
	waiting  atomic.Int64  // callers who wait for the one at work
}

// lastingError is the error of a flush after which nobody knows what is on the
// disk.
type lastingError struct{ error }

func (e lastingError) Unwrap() error { return e.error }

// do returns after a flush that began after do was called. It makes it itself
// if nobody else does.
func (f *flusher) do(ctx context.Context, flush func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for want := f.started + 1; f.finished < want; {
		switch {
		case f.failed != nil:
			return f.failed
		case f.ended == nil:
			f.work(flush)
		default:
			if err := f.wait(ctx, f.ended); err != nil {
				return err
			}
		}
	}
	if f.failed != nil {
		return f.failed
	}
	return f.err
}

// work flushes. f.mu is held, but not meanwhile.
func (f *flusher) work(flush func() error) {
	f.started++
	ended := make(chan struct{})
	f.ended = ended
	f.mu.Unlock()
	err := flush()
	f.count.Add(1)
	f.mu.Lock()
	f.finished, f.ended, f.err = f.started, nil, err
	var lasting lastingError
	if f.failed == nil && errors.As(err, &lasting) {
		f.failed = err
	}
	close(ended)
}

// wait waits for the flush at work. f.mu is held, but not meanwhile.
func (f *flusher) wait(ctx context.Context, ended chan struct{}) error {
	f.waiting.Add(1)
	defer f.waiting.Add(-1)
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exclusive flushes, and then calls then, while nobody else flushes. Those who
// wait for a flush hear only about the flush.
func (f *flusher) exclusive(ctx context.Context, flush, then func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ended != nil {
		if err := f.wait(ctx, f.ended); err != nil {
			return err
		}
	}
	if f.failed != nil {
		return f.failed
	}
	var err error
	f.work(func() error {
		flushErr := flush()
		if err = flushErr; err == nil {
			err = then()
		}
		return flushErr
	})
	return err
}

// alone flushes for a caller who knows that nobody else does.
func (f *flusher) alone(flush func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	f.work(flush)
	return f.err
}

// fail has all later flushes fail.
func (f *flusher) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
}
