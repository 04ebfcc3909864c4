package blob

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// LimitConfig bounds the requests that are under way at the same time.
type LimitConfig struct {
	// Requests is the number of requests in flight. Default 64.
	Requests int
	// Background is how many of them may be Background reads; the others
	// are kept free, so a Demand read that finds no connection never waits
	// behind more background reads than this. Default a quarter of
	// Requests, at least 1.
	Background int
}

// Validate reports values that make no sense.
func (c LimitConfig) Validate() error {
	if c.Requests < 0 || c.Background < 0 {
		return fmt.Errorf("limits of %d requests, %d in the background are negative", c.Requests, c.Background)
	}
	if d := c.withDefaults(); d.Background > d.Requests {
		return fmt.Errorf("limit of %d background requests is above the limit of %d in all", d.Background, d.Requests)
	}
	return nil
}

func (c LimitConfig) withDefaults() LimitConfig {
	if c.Requests <= 0 {
		c.Requests = 64
	}
	if c.Background <= 0 {
		c.Background = max(1, c.Requests/4)
	}
	return c
}

// Limiter shares a number of requests in flight among blobs, usually those of
// one registry host. Demand reads go strictly before background reads, each
// class in order of arrival. A waiting background read whose priority is raised
// (see Raisable) joins the end of the demand queue.
//
// A read must not pass the same Limiter twice: it would wait for itself.
type Limiter struct {
	cfg LimitConfig

	mu             sync.Mutex
	busy           int           // requests in flight
	busyBackground int           // those of them that started as Background
	queues         [2]*list.List // of *waiter, by Priority
}

// waiter is a read without a slot. All fields but granted belong to
// Limiter.mu; granted is closed under it.
type waiter struct {
	class   Priority
	elem    *list.Element // nil once granted
	granted chan struct{}
}

// LimiterStats is a snapshot of a Limiter.
type LimiterStats struct {
	InFlight, InFlightBackground int // requests
	Waiting, WaitingBackground   int // reads without a slot: all of them, and those of low priority
}

// NewLimiter returns a Limiter; values of cfg that are zero get the defaults.
func NewLimiter(cfg LimitConfig) *Limiter {
	l := &Limiter{cfg: cfg.withDefaults()}
	l.queues[Demand], l.queues[Background] = list.New(), list.New()
	return l
}

// Background returns how many requests for background reads may be in flight.
func (l *Limiter) Background() int { return l.cfg.Background }

// Stats returns how busy the limiter is.
func (l *Limiter) Stats() LimiterStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LimiterStats{
		InFlight: l.busy, InFlightBackground: l.busyBackground,
		Waiting:           l.queues[Demand].Len() + l.queues[Background].Len(),
		WaitingBackground: l.queues[Background].Len(),
	}
}

// acquire waits for a slot. The returned class is to be given to release.
func (l *Limiter) acquire(ctx context.Context) (Priority, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	class := Demand
	if PriorityOf(ctx) != Demand {
		class = Background
	}
	w := &waiter{class: class, granted: make(chan struct{})}
	l.mu.Lock()
	w.elem = l.queues[class].PushBack(w)
	l.grant()
	l.mu.Unlock()

	var raised <-chan struct{}
	if class == Background {
		raised = Raised(ctx)
	}
	for {
		select {
		case <-w.granted:
			return w.class, nil
		case <-raised:
			raised = nil
			l.raise(w)
		case <-ctx.Done():
			l.abandon(w)
			return 0, ctx.Err()
		}
	}
}

// raise moves a waiter to the demand queue.
func (l *Limiter) raise(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.elem == nil {
		return
	}
	l.queues[w.class].Remove(w.elem)
	w.class = Demand
	w.elem = l.queues[Demand].PushBack(w)
	l.grant()
}

// abandon takes a waiter out of its queue, or gives the slot back that it was
// granted while it turned away.
func (l *Limiter) abandon(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.elem != nil {
		l.queues[w.class].Remove(w.elem)
		return
	}
	l.put(w.class)
}

func (l *Limiter) release(class Priority) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(class)
}

// put returns a slot; l.mu is held.
func (l *Limiter) put(class Priority) {
	l.busy--
	if class == Background {
		l.busyBackground--
	}
	l.grant()
}

// grant hands free slots to waiters; l.mu is held.
func (l *Limiter) grant() {
	for l.busy < l.cfg.Requests {
		q := l.queues[Demand]
		if q.Len() == 0 {
			q = l.queues[Background]
			if q.Len() == 0 || l.busyBackground >= l.cfg.Background {
				return
			}
		}
		w := q.Remove(q.Front()).(*waiter)
		w.elem = nil
		l.busy++
		if w.class == Background {
			l.busyBackground++
		}
		close(w.granted)
	}
}

type limited struct {
	passthrough
	l *Limiter
}

// Limit returns b with its reads bounded together with those of every other
// blob of the limiter. Reads of bytes that are present locally are bounded too,
// so Limit belongs right above the network.
func (l *Limiter) Limit(b Blob) Blob {
	return &limited{passthrough{b}, l}
}

// ReadAt implements ReaderAt.
func (r *limited) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	class, err := r.l.acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("waiting for a connection: %w", err)
	}
	defer r.l.release(class)
	return r.Blob.ReadAt(ctx, p, off)
}
