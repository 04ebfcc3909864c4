package warmup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

const (
	// firstPause is the mean pause before the second attempt. It doubles from there.
	firstPause = 100 * time.Millisecond
	// longestPause bounds what a registry can ask for.
	longestPause = 30 * time.Second
	// poisoned is how many objects in a row may be refused for good, as if the registry
	// were down, before it is taken to be.
	poisoned = 8
)

// lostError is that the registry takes nothing any more: what is left is not tried.
type lostError struct{ err error }

func (e *lostError) Error() string {
	return fmt.Sprintf("warming up: the registry is lost, nothing works any more: %v", e.err)
}

func (e *lostError) Unwrap() error { return e.err }

// attempt calls f until it works, where that may be the next time. When no call has
// worked in as many as all threads have attempts, the error is a *lostError: that a
// registry is down ends the warmup, and does not make bad what is left of it. A call
// that timed out counts as all attempts at an object.
func (w *worker) attempt(ctx context.Context, f func() (load.Answer, error)) error {
	for n := 1; ; n++ {
		a, err := f()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		passes := err != nil && passing(err)
		weight := 0
		if e, ok := errors.AsType[*load.Error](err); passes && ok {
			weight = 1
			if e.Cause == load.CauseTimeout {
				weight = w.cfg.Attempts
			}
		}
		if strikes := w.strike(weight); strikes >= w.cfg.Attempts*max(w.cfg.Threads, poisoned) {
			return &lostError{err}
		}
		if !passes || n == w.cfg.Attempts {
			return err
		}
		if !pause.For(ctx, backOff(n, a.Header)) {
			return ctx.Err()
		}
	}
}

// strike adds to what failed since something worked and returns it; 0: it worked.
func (w *worker) strike(weight int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.strikes += weight; weight == 0 {
		w.strikes = 0
	}
	return w.strikes
}

// backOff returns how long to wait after the nth attempt: what the registry asks for,
// and else about twice as long as before, not the same for all.
func backOff(n int, answer http.Header) time.Duration {
	mean := min(firstPause<<min(n-1, 16), longestPause)
	d := mean/2 + rand.N(mean)
	if seconds, err := strconv.Atoi(answer.Get("Retry-After")); err == nil && seconds > 0 {
		d += min(time.Duration(min(seconds, 1<<20))*time.Second, longestPause)
	}
	return d
}

// passing reports whether an error may pass.
func passing(err error) bool {
	e, ok := errors.AsType[*load.Error](err)
	if !ok {
		return false
	}
	switch e.Cause {
	case load.CauseConnect, load.CauseCut, load.CauseTimeout:
		return true
	case load.CauseAuth: // the token server may be down
		_, network := errors.AsType[net.Error](e.Err)
		return network
	}
	return e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError
}
