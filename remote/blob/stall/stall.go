// Package stall ends what waits for a network or a store of which nothing comes, or to
// which nothing goes, for a while. The clock runs only while somebody waits: whoever is
// slow to read what has come, or to make what is to go, is no stall.
package stall

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Error is the error of a transfer that was cut off because no byte moved for a while.
type Error struct {
	After time.Duration
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("no data for %s", e.After) }

// Timeout tells package net's callers what it is.
func (e *Error) Timeout() bool { return true }

// errStalled is why the context of a Watch was ended by it.
var errStalled = errors.New("no data came for too long")

// Watch is the clock of one direction of a transfer. It is for one goroutine.
type Watch struct {
	ctx    context.Context // of the transfer
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
}

// New returns a watch over a transfer, which is to happen in the watch's Context: that
// ends with ctx, and when Start was called and neither Start nor Stop again for the limit.
// The caller calls End.
func New(ctx context.Context, limit time.Duration) *Watch {
	ctx, cancel := context.WithCancelCause(ctx)
	return over(ctx, cancel, limit)
}

func over(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) *Watch {
	t := time.AfterFunc(limit, func() { cancel(errStalled) })
	t.Stop()
	return &Watch{ctx, cancel, limit, t}
}

// Beside returns a clock for the other direction of the same transfer, which may be under
// way at the same time.
func (w *Watch) Beside() *Watch { return over(w.ctx, w.cancel, w.limit) }

// Context is that of the transfer.
func (w *Watch) Context() context.Context { return w.ctx }

// Start begins a wait.
func (w *Watch) Start() { w.timer.Reset(w.limit) }

// Extend begins a wait that may take longer than others, as may those that follow.
func (w *Watch) Extend(limit time.Duration) {
	w.limit = max(w.limit, limit)
	w.Start()
}

// Stop ends a wait.
func (w *Watch) Stop() { w.timer.Stop() }

// End ends the transfer, and what the watch has.
func (w *Watch) End() {
	w.Stop()
	w.cancel(nil)
}

// Explain replaces err, with which the transfer ended, with an Error if it was cut off.
func (w *Watch) Explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return &Error{w.limit}
	}
	return err
}
