package upstream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// lane bounds how many requests are under way.
type lane struct {
	slots chan struct{}
	users int // waiting or under way; guarded by lanes.mu
}

// lanes are the bounds of a Client: one for all downloads, and one of each host for
// what is asked besides, so that neither a long download nor a host that hangs keeps
// anybody from asking.
type lanes struct {
	queueFor time.Duration
	blobs    *lane
	checks   int // slots of the lane of a host

	blobsWait, checksWait, checksBusy atomic.Int64

	mu    sync.Mutex
	hosts map[string]*lane // that are used now
}

func newLanes(cfg Config) *lanes {
	return &lanes{
		queueFor: cfg.QueueFor,
		blobs:    &lane{slots: make(chan struct{}, cfg.Workers)},
		checks:   cfg.Checks,
		hosts:    make(map[string]*lane),
	}
}

// enter waits for a slot, and returns what frees it again, which may be called more
// than once.
func (l *lanes) enter(ctx context.Context, host string, blob bool) (leave func(), err error) {
	if blob {
		if err := l.wait(ctx, l.blobs, &l.blobsWait); err != nil {
			return nil, err
		}
		return sync.OnceFunc(func() { <-l.blobs.slots }), nil
	}
	in := l.use(host)
	if err := l.wait(ctx, in, &l.checksWait); err != nil {
		l.unuse(host, in)
		return nil, err
	}
	l.checksBusy.Add(1)
	return sync.OnceFunc(func() {
		l.checksBusy.Add(-1)
		<-in.slots
		l.unuse(host, in)
	}), nil
}

func (l *lanes) wait(ctx context.Context, in *lane, waiting *atomic.Int64) error {
	select {
	case in.slots <- struct{}{}:
		return nil
	default:
	}
	waiting.Add(1)
	defer waiting.Add(-1)
	timer := time.NewTimer(l.queueFor)
	defer timer.Stop()
	select {
	case in.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: none of %d ended in %s", ErrBusy, cap(in.slots), l.queueFor)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lanes) use(host string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.hosts[host]
	if in == nil {
		in = &lane{slots: make(chan struct{}, l.checks)}
		l.hosts[host] = in
	}
	in.users++
	return in
}

func (l *lanes) unuse(host string, in *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.users--; in.users == 0 {
		delete(l.hosts, host)
	}
}
