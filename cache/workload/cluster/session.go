package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// session is a client's side of a connection.
type session struct {
	*server
	wire  *wire
	watch *watch
	cut   context.CancelCauseFunc // of the connection
	from  string                  // the master's address
	log   *slog.Logger
	proof []byte        // of the client
	beat  time.Duration // between heartbeats
	job   *job          // nil: there was no order yet
	out   outbox

	ordered atomic.Bool // there was one
}

var (
	// errLeft is the end of a session of which all was told.
	errLeft = errors.New("the master left")
	// errStopping is why a job is aborted when the client ends.
	errStopping = errors.New("the client was told to end")
)

// serve does what the master says until it leaves. The goroutine that reads the
// master's lines never waits for anything else: answers are sent by another. ctx ends
// with the connection.
func (x *session) serve(ctx context.Context, state *tls.ConnectionState) error {
	if err := x.greet(state); err != nil {
		return err
	}
	with, free := x.take(x.from)
	if !free {
		return x.refuse("busy", fmt.Errorf("%w with a job of %s", ErrBusy, with))
	}
	defer x.release()
	if err := x.welcome(); err != nil {
		return err
	}
	x.log.Info("master came")
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	work, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	var g errgroup.Group
	g.Go(func() error {
		err := x.out.run(ctx, x.wire, x.beat)
		if err != nil {
			x.cut(fmt.Errorf("%w: %w", ErrGone, err))
		}
		return nil // it is the cause
	})
	g.Go(func() error {
		select {
		case <-x.stopping:
			if abort(errStopping); !x.ordered.Load() {
				x.cut(errStopping) // there is nothing to tell
			}
		case <-ctx.Done():
		}
		return nil
	})
	err := x.listen(work, abort, &g)
	if !errors.Is(err, errLeft) {
		x.cut(err)
	}
	leave()
	g.Wait() //nolint:errcheck // they return none
	if !errors.Is(err, errLeft) {
		return err
	}
	x.log.Info("master left")
	return nil
}

// listen follows the lines of the master until it leaves. work is what a job ends
// with, and abort ends it.
func (x *session) listen(work context.Context, abort context.CancelCauseFunc, g *errgroup.Group) error {
	x.watch.pause()
	x.watch = watchOver(misses*x.beat, x.cut)
	for {
		x.watch.heard()
		m, err := x.wire.receive(maxLine)
		switch {
		case errors.Is(err, io.EOF) && x.out.finished():
			return errLeft
		case errors.Is(err, errLine) || errors.Is(err, errMessage):
			return err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		switch {
		case m.Time != nil:
			x.out.answer(timing{Asked: m.Time.Asked, Told: x.clock.now()})
		case m.Order != nil && x.job == nil:
			x.ordered.Store(true)
			x.job = newJob(*m.Order, &x.out, x.cfg.window)
			x.log.Info("job came", "job", m.Order.Job.ID)
			g.Go(func() error {
				x.job.run(work, x.cfg, x.clock)
				x.log.Info("job ended", "job", x.job.order.Job.ID)
				return nil
			})
		case m.Items != nil && x.job != nil:
			if err := x.job.put(m.Items); err != nil {
				return err
			}
		case m.End && x.job != nil:
			x.job.end()
		case m.Abort != "":
			abort(errors.New(m.Abort))
		default:
			return errUnexpected
		}
	}
}
