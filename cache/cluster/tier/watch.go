package tier

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// watch ends a call of the store that does not get on.
type watch struct {
	ctx     context.Context // of the call
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

// newWatch returns a watch that runs.
func newWatch(ctx context.Context, timeout time.Duration) *watch {
	w := &watch{timeout: timeout}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(timeout, func() { w.cancel(ErrSilent) })
	return w
}

// start begins a wait for the store.
func (w *watch) start() { w.timer.Reset(w.timeout) }

// extend is that what is waited for now may take longer.
func (w *watch) extend(timeout time.Duration) {
	w.timeout = max(w.timeout, timeout)
	w.start()
}

// stop is that the store is not waited for.
func (w *watch) stop() { w.timer.Stop() }

// end frees what the watch has. What is under way in its context ends.
func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// errorOf returns what is to be said for an error of the call.
func (w *watch) errorOf(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), ErrSilent) {
		return fmt.Errorf("%w for %v", ErrSilent, w.timeout)
	}
	return err
}
