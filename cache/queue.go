package cache

import (
	"context"
	"slices"
	"sync"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// task is a fetched range of one run on its way to the disk. Readers are
// served from it until it is there.
type task struct {
	o   *opened
	off int64
	buf []byte // never changes
	// reached is closed when a barrier comes to the head of the queue; such
	// a task has no bytes.
	reached chan<- struct{}
}

func (t *task) end() int64 { return t.off + int64(len(t.buf)) }

// copyTo copies what t has from x on, which it has, into p, which is at off of
// the blob, and returns where t ends.
func (t *task) copyTo(p []byte, off, x int64) int64 {
	copy(p[x-off:], t.buf[x-t.off:])
	return t.end()
}

// queue holds fetched bytes until the store goroutine takes them. It is
// bounded in bytes, except that one task always fits.
type queue struct {
	limit int64
	ready chan struct{} // tells the consumer that there is something

	mu     sync.Mutex
	tasks  []*task
	bytes  int64
	closed bool
	room   chan struct{} // closed when room is made, nil if nobody waits
}

func (q *queue) init(limit int64) {
	q.limit = limit
	q.ready = make(chan struct{}, 1)
}

// push appends t. When there is no room it fails, or waits for room if wait.
func (q *queue) push(ctx context.Context, t *task, wait bool) bool {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return false
		}
		if n := int64(len(t.buf)); q.bytes == 0 || q.bytes+n <= q.limit {
			q.bytes += n
			q.tasks = append(q.tasks, t)
			q.mu.Unlock()
			q.signal()
			return true
		}
		if !wait {
			q.mu.Unlock()
			return false
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// barrier closes reached when all tasks pushed before are done, and reports
// false if the queue is closed.
func (q *queue) barrier(reached chan<- struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.tasks = append(q.tasks, &task{reached: reached})
	q.signal()
	return true
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pop waits for a task; nil says that the queue is closed and empty.
func (q *queue) pop() *task {
	for {
		q.mu.Lock()
		if len(q.tasks) > 0 {
			t := q.tasks[0]
			q.tasks[0] = nil
			q.tasks = q.tasks[1:]
			q.mu.Unlock()
			return t
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.ready
	}
}

// done gives back the room of t.
func (q *queue) done(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= int64(len(t.buf))
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// close lets pop drain what is there and refuses more.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	q.signal()
}

// enqueue hands t over for storing, cut at run boundaries. What does not fit
// is dropped, unless wait.
func (c *Cache) enqueue(ctx context.Context, t *task, wait bool) {
	if c.paused() {
		c.count.droppedStores.Add(1)
		return
	}
	for buf, off := t.buf, t.off; len(buf) > 0; {
		n := min(int64(len(buf)), presence.Run-off%presence.Run)
		part := &task{o: t.o, off: off, buf: buf[:n:n]}
		t.o.users.Add(1)
		t.o.queue(part)
		if !c.queue.push(ctx, part, wait) {
			c.count.droppedStores.Add(1)
			t.o.unqueue(part)
			t.o.release()
		}
		buf, off = buf[n:], off+n
	}
}

func (o *opened) queue(t *task) {
	o.queueing.Lock()
	defer o.queueing.Unlock()
	run := int(t.off / presence.Run)
	o.queued[run] = append(o.queued[run], t)
}

// unqueue removes t and reports whether it was there.
func (o *opened) unqueue(t *task) bool {
	o.queueing.Lock()
	defer o.queueing.Unlock()
	run := int(t.off / presence.Run)
	i := slices.Index(o.queued[run], t)
	if i < 0 {
		return false
	}
	if o.queued[run] = slices.Delete(o.queued[run], i, i+1); len(o.queued[run]) == 0 {
		delete(o.queued, run)
	}
	return true
}

// waits reports whether t is still to be stored.
func (o *opened) waits(t *task) bool {
	o.queueing.Lock()
	defer o.queueing.Unlock()
	return slices.Contains(o.queued[int(t.off/presence.Run)], t)
}

// waiting returns the queued task that covers off or, failing that, the one
// that starts first after it and before end; nil if there is none.
func (o *opened) waiting(off, end int64) (first *task) {
	o.queueing.Lock()
	defer o.queueing.Unlock()
	if len(o.queued) == 0 {
		return nil
	}
	for run := off / presence.Run; run*presence.Run < end; run++ {
		for _, t := range o.queued[int(run)] {
			switch {
			case t.end() <= off || t.off >= end:
			case t.off <= off:
				return t
			case first == nil || t.off < first.off:
				first = t
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// unqueueRange drops the queued tasks that overlap [off, end): their bytes
// came before somebody found the range damaged.
func (o *opened) unqueueRange(off, end int64) {
	o.queueing.Lock()
	defer o.queueing.Unlock()
	for run, tasks := range o.queued {
		tasks = slices.DeleteFunc(tasks, func(t *task) bool { return t.off < end && t.end() > off })
		if o.queued[run] = tasks; len(tasks) == 0 {
			delete(o.queued, run)
		}
	}
}
