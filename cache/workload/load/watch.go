package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

var errIdle = errors.New("no progress within the timeout")

// watch ends the context of a request that makes no progress.
type watch struct {
	timeout time.Duration
	cancel  context.CancelCauseFunc
	began   time.Time
	moved   atomic.Int64 // nanoseconds from began to the last progress
	timer   *time.Timer
}

// watchOver returns a context that ends when touch was not called for the timeout.
// End must be called.
func watchOver(ctx context.Context, timeout time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{timeout: timeout, cancel: cancel, began: time.Now()}
	w.timer = time.AfterFunc(timeout, w.look)
	return ctx, w
}

// look ends the context, or comes again when the timeout after the last progress is
// over: to set the timer at each progress would cost more than to look once too often.
func (w *watch) look() {
	idle := time.Since(w.began) - time.Duration(w.moved.Load())
	if idle >= w.timeout {
		w.cancel(errIdle)
		return
	}
	w.timer.Reset(w.timeout - idle)
}

func (w *watch) touch() { w.moved.Store(int64(time.Since(w.began))) }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
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
