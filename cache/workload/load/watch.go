package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var errIdle = errors.New("no progress within the timeout")

// watch ends the context of requests that make no progress. It is for requests one
// after the other, as a context and a timer for each would cost more than the rest of
// what is done for a small one.
type watch struct {
	timeout time.Duration
	epoch   time.Time
	moved   atomic.Int64 // nanoseconds from epoch to the last progress

	mu     sync.Mutex
	active bool
	ctx    context.Context // of the requests, until one makes no progress
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func newWatch(timeout time.Duration) *watch { return &watch{timeout: timeout, epoch: time.Now()} }

// begin returns the context of a request, which is within parent, the same for all.
// It is followed by end.
func (w *watch) begin(parent context.Context) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touch()
	w.active = true
	if w.ctx == nil {
		w.ctx, w.cancel = context.WithCancelCause(parent)
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(w.timeout, w.look)
	}
	return w.ctx
}

// touch says that there is progress.
func (w *watch) touch() { w.moved.Store(int64(time.Since(w.epoch))) }

// look ends the context if nothing moved, or comes again when the timeout after the
// last progress is over: to set the timer at each progress would cost more than to
// look once too often.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	idle := time.Since(w.epoch) - time.Duration(w.moved.Load())
	switch {
	case w.cancel == nil: // closed
	case !w.active:
		w.timer.Reset(w.timeout)
	case idle < w.timeout:
		w.timer.Reset(w.timeout - idle)
	default:
		w.cancel(errIdle)
		w.timer = nil
	}
}

// end ends what begin began. A context that has ended is not used again.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active = false
	if w.ctx.Err() != nil {
		w.ctx = nil
	}
}

// close ends what there is.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel(nil)
	}
	w.ctx, w.cancel = nil, nil
}

// failure returns err, which a request with a context of ctx ended with, with its
// cause.
func failure(ctx context.Context, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(context.Cause(ctx), errIdle):
		return &Error{Cause: CauseTimeout, Err: errIdle}
	case ctx.Err() != nil:
		return &Error{Cause: CauseAborted, Err: context.Cause(ctx)}
	case unconnected(err):
		return &Error{Cause: CauseConnect, Err: err}
	}
	return &Error{Cause: CauseCut, Err: err}
}

// unconnected reports whether err is of a connection that was never made.
func unconnected(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.AlertError](err)
	return ok
}

// authError is err, which asking for a token ended with.
func authError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return failure(ctx, err)
	}
	return &Error{Cause: CauseAuth, Err: err}
}

// exhausted reports whether err says that this machine has no more ports, files or
// buffers.
func exhausted(err error) bool {
	for _, e := range []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
