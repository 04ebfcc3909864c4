package proxy

import (
	"context"
	"errors"
	"sync"
)

// flights lets one request at a time do what others wait for. Its result is
// shared with those it is of use to, its error only with those of the same
// credential: another caller's may have more rights, or fewer. The zero value
// is ready to use.
type flights[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

// errUnfinished is the error of work that panicked.
var errUnfinished = errors.New("asking the upstream was given up")

type flight[V any] struct {
	done  chan struct{}
	who   string
	value V // this and err are set before done is closed
	err   error
}

// task is what a request wants of a flight.
type task[V any] struct {
	who    string
	found  func() (V, bool)  // looks whether it is there already
	work   func() (V, error) // gets it
	usable func(V) bool      // whether what another request's work got will do
}

// do returns what t.found or t.work do, after waiting for the one that is at
// work if there is one. A caller that goes while it waits gets its ctx's error;
// work ends by its own.
func (f *flights[K, V]) do(ctx context.Context, key K, t task[V]) (v V, err error) {
	for {
		if v, ok := t.found(); ok {
			return v, nil
		}
		other, leading := f.enter(key, t.who)
		if leading {
			return f.lead(key, other, t.work)
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return v, ctx.Err()
		}
		if other.err == nil && t.usable(other.value) {
			return other.value, nil
		}
		if other.err != nil && other.who == t.who {
			return v, other.err
		}
	}
}

func (f *flights[K, V]) enter(key K, who string) (fl *flight[V], leading bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.m[key]; other != nil {
		return other, false
	}
	if f.m == nil {
		f.m = make(map[K]*flight[V])
	}
	own := &flight[V]{done: make(chan struct{}), who: who, err: errUnfinished}
	f.m[key] = own
	return own, true
}

func (f *flights[K, V]) lead(key K, own *flight[V], work func() (V, error)) (V, error) {
	defer func() { // also when work panics
		f.mu.Lock()
		delete(f.m, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.value, own.err = work()
	return own.value, own.err
}
