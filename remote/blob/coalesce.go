package blob

import (
	"context"
	"slices"
	"sync"

	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

// A Demand read joins a Background fetch only if that is not much larger than
// what the read needs: waiting for a megabyte that nobody is in a hurry for
// costs more than fetching a few blocks twice.
const (
	joinAnyBelow = 256 << 10 // bytes: fetches up to this size are always joined
	joinFactor   = 8         // larger ones by reads of at least 1/joinFactor of them
)

// Coalesce returns b with concurrent reads of the same bytes served by one
// fetch: a read whose range equals, or lies within, that of a fetch under way
// waits for it instead of starting another.
//
// A fetch belongs to all reads that wait for it: it goes on while one of them
// is left, and is cancelled with the last. Its error is theirs; later reads
// start anew. It has the priority of the most urgent of them.
func Coalesce(b Blob) Blob {
	return &coalesced{passthrough: passthrough{b}}
}

type coalesced struct {
	passthrough

	mu      sync.Mutex
	flights []*flight // under way and wanted; few enough to search
}

// flight is one fetch of [off, off+len(buf)). The fields of the first group do
// not change, those of the second belong to coalesced.mu, those of the third
// are written by the fetch before done is closed.
type flight struct {
	off      int64
	buf      []byte
	lent     *[]byte // buf, to be returned
	priority *Raisable
	cancel   context.CancelFunc
	done     chan struct{}

	waiters int
	refs    int // waiters, plus one for the fetch: who still uses buf

	n   int
	err error
}

// ReadAt implements ReaderAt.
func (c *coalesced) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	p, end := Clip(c.Blob, p, off)
	if len(p) == 0 {
		return 0, end
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f := c.join(ctx, len(p), off)
	defer c.leave(f)
	if err := wait(ctx, f); err != nil {
		return 0, err
	}
	from := min(int(off-f.off), f.n)
	n := copy(p, f.buf[from:f.n])
	if n < len(p) {
		return n, f.err
	}
	return n, end
}

// wait returns when the fetch has ended or ctx has, and passes on to the fetch
// that the read became urgent.
func wait(ctx context.Context, f *flight) error {
	raised := Raised(ctx)
	for {
		select {
		case <-f.done:
			return nil
		case <-raised:
			raised = nil
			f.priority.Raise()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// join returns a fetch that covers [off, off+n) and counts the caller among
// those who wait for it.
func (c *coalesced) join(ctx context.Context, n int, off int64) *flight {
	urgent := PriorityOf(ctx) == Demand
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flights {
		if f.covers(n, off) && (!urgent || f.worthWaiting(n)) {
			f.waiters++
			f.refs++
			if urgent {
				f.priority.Raise()
			}
			return f
		}
	}
	return c.start(ctx, n, off)
}

// start begins a fetch; c.mu is held. The goroutine ends with the fetch, which
// has a reader waiting for it as long as it is not cancelled.
func (c *coalesced) start(ctx context.Context, n int, off int64) *flight {
	lent := scratch.Borrow(n)
	f := &flight{off: off, buf: *lent, lent: lent, done: make(chan struct{}), waiters: 1, refs: 2}
	ctx, f.priority = WithRaisable(context.WithoutCancel(ctx), PriorityOf(ctx))
	ctx, f.cancel = context.WithCancel(ctx)
	c.flights = append(c.flights, f)
	go c.fetch(ctx, f)
	return f
}

func (c *coalesced) fetch(ctx context.Context, f *flight) {
	n, err := c.Blob.ReadAt(ctx, f.buf, f.off)
	f.cancel()

	c.mu.Lock()
	f.n, f.err = n, err
	c.remove(f)
	close(f.done)
	c.unref(f)
	c.mu.Unlock()
}

// leave ends the interest of one read in f. A fetch that nobody waits for is
// cancelled, and can not be joined any more.
func (c *coalesced) leave(f *flight) {
	c.mu.Lock()
	f.waiters--
	abandoned := f.waiters == 0
	if abandoned {
		c.remove(f)
	}
	c.unref(f)
	c.mu.Unlock()
	if abandoned {
		f.cancel()
	}
}

func (c *coalesced) remove(f *flight) {
	if i := slices.Index(c.flights, f); i >= 0 {
		c.flights = slices.Delete(c.flights, i, i+1)
	}
}

func (c *coalesced) unref(f *flight) {
	if f.refs--; f.refs == 0 {
		scratch.Return(f.lent)
	}
}

func (f *flight) covers(n int, off int64) bool {
	return f.off <= off && off+int64(n) <= f.off+int64(len(f.buf))
}

// worthWaiting reports whether a Demand read of n bytes gains by joining f.
func (f *flight) worthWaiting(n int) bool {
	return f.priority.Priority() == Demand || len(f.buf) <= max(joinAnyBelow, joinFactor*n)
}
