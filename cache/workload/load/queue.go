package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ahead is how many items are read before they are due, so that reading a trace
// delays none.
const ahead = 1024

// job is an item that is sent.
type job struct {
	item Item
	due  time.Time // zero in a closed loop that is not paced
	turn *turn     // of a part of an upload
}

// queue is the items of a source, for several that take them.
type queue struct {
	src     Source
	uploads *uploads
	items   chan job // that were read ahead; nil: none are

	mu    sync.Mutex
	ended bool
	err   error // of the source
}

// read reads the source into items until it or ctx ends.
func (q *queue) read(ctx context.Context) {
	defer close(q.items)
	for {
		j, ok := q.one(ctx)
		if !ok {
			return
		}
		select {
		case q.items <- j:
		case <-ctx.Done():
			return
		}
	}
}

// one reads one item from the source.
func (q *queue) one(ctx context.Context) (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || ctx.Err() != nil {
		return job{}, false
	}
	it, err := q.src.Next(ctx)
	if err == nil {
		return job{item: it, turn: q.uploads.claim(&it)}, true
	}
	q.ended = true
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		q.err = fmt.Errorf("reading what to send: %w", err)
	}
	return job{}, false
}

// next returns the next item, false if there is none any more.
func (q *queue) next(ctx context.Context) (job, bool) {
	if q.items == nil {
		return q.one(ctx)
	}
	if ctx.Err() != nil {
		return job{}, false
	}
	select {
	case j, ok := <-q.items:
		return j, ok
	case <-ctx.Done():
		return job{}, false
	}
}
