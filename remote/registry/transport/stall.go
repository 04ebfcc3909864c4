package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// StallError is the error of a transfer that was cut off because no byte moved
// for a while.
type StallError struct {
	After time.Duration
}

// Error implements error.
func (e *StallError) Error() string { return fmt.Sprintf("no data for %s", e.After) }

// Timeout tells package net's callers what it is.
func (e *StallError) Timeout() bool { return true }

type stall struct {
	next  http.RoundTripper
	limit time.Duration
}

// Stall cuts off requests whose body, in either direction, does not move for
// the time limit. The clock runs only while somebody waits for the network: a
// slow reader of a response, or a slow source of an upload, is no stall.
func Stall(next http.RoundTripper, limit time.Duration) http.RoundTripper {
	return &stall{next, limit}
}

// RoundTrip implements http.RoundTripper.
func (t *stall) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	w := newWatch(ctx, cancel, t.limit)
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		// Both directions may be under way together: a clock each.
		r.Body = &upload{r.Body, newWatch(ctx, cancel, t.limit)}
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		w.end()
		return nil, w.explain(err)
	}
	resp.Body = &download{resp.Body, w}
	return resp, nil
}

// watch is the clock of one direction of a request.
type watch struct {
	ctx    context.Context // of the request under way, not of a caller
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
}

func newWatch(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) *watch {
	t := time.AfterFunc(limit, func() { cancel(&StallError{limit}) })
	t.Stop()
	return &watch{ctx, cancel, limit, t}
}

func (w *watch) start() { w.timer.Reset(w.limit) }

func (w *watch) stop() { w.timer.Stop() }

func (w *watch) end() {
	w.stop()
	w.cancel(nil)
}

// explain replaces the "context canceled" of a request that w cut off.
func (w *watch) explain(err error) error {
	if cause, ok := errors.AsType[*StallError](context.Cause(w.ctx)); ok {
		return cause
	}
	return err
}

// download watches a response body.
type download struct {
	io.ReadCloser
	w *watch
}

// Read implements io.Reader.
func (b *download) Read(p []byte) (int, error) {
	b.w.start()
	n, err := b.ReadCloser.Read(p)
	b.w.stop()
	if err == io.EOF { //nolint:errorlint // a body ends with it as it is
		b.w.end()
	} else if err != nil {
		err = b.w.explain(err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *download) Close() error {
	err := b.ReadCloser.Close()
	b.w.end()
	return err
}

// upload watches a request body: the network has it from the end of one Read to
// the begin of the next.
type upload struct {
	io.ReadCloser
	w *watch
}

// Read implements io.Reader.
func (b *upload) Read(p []byte) (int, error) {
	b.w.stop()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.w.start()
	}
	return n, err
}

// Close implements io.Closer.
func (b *upload) Close() error {
	b.w.stop()
	return b.ReadCloser.Close()
}

// CloseIdleConnections implements what http.Client expects.
func (t *stall) CloseIdleConnections() { CloseIdle(t.next) }
