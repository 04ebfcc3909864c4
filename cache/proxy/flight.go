package proxy

import (
	"context"
	"errors"
	"sync"
)

// flights lets one request at a time do what others wait for. The error of the
// one is shared only with those of the same credential: another caller's may
// have more rights, or fewer. The zero value is ready to use.
type flights[K comparable] struct {
	mu sync.Mutex
	m  map[K]*flight
}

// errUnfinished is the error of work that panicked.
var errUnfinished = errors.New("asking the upstream was given up")

type flight struct {
	done chan struct{}
	who  string
	err  error // set before done is closed
}

// do calls found until it returns true, and between two calls of it either
// waits for the one that is at work or is that one and calls work. It returns
// nil once found did, else the error of its own work or of that of a request
// with the same who. A caller that goes while it waits gets its ctx's error;
// work ends by its own.
func (f *flights[K]) do(ctx context.Context, key K, who string, found func() bool, work func() error) error {
	worked := false
	for !found() {
		if worked {
			return nil // and nothing was kept, which work's caller knows
		}
		other, leading := f.enter(key, who)
		if leading {
			worked = true
			if err := f.lead(key, other, work); err != nil {
				return err
			}
			continue
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if other.err != nil && other.who == who {
			return other.err
		}
	}
	return nil
}

func (f *flights[K]) enter(key K, who string) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.m[key]; other != nil {
		return other, false
	}
	if f.m == nil {
		f.m = make(map[K]*flight)
	}
	own := &flight{done: make(chan struct{}), who: who, err: errUnfinished}
	f.m[key] = own
	return own, true
}

func (f *flights[K]) lead(key K, own *flight, work func() error) error {
	defer func() { // also when work panics
		f.mu.Lock()
		delete(f.m, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.err = work()
	return own.err
}
