package cluster

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// How a clock is read: so many times, of which the quickest answer counts.
const readings = 8

// retry is how long after a refused connection another is tried.
const retry = 100 * time.Millisecond

// connect connects to the client and makes sure of it. ctx ends the connection, not
// only the connecting.
func (l *link) connect(ctx context.Context) error {
	late := time.AfterFunc(l.cfg.Patience, func() {
		l.cut(fmt.Errorf("%w for %v", ErrSilent, l.cfg.Patience))
	})
	defer late.Stop()
	err := l.reach(ctx)
	if err == nil {
		err = l.greet()
	}
	if err == nil {
		err = l.compare()
	}
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(err, syscall.ECONNREFUSED): // people must learn of it
		return fmt.Errorf("%w: %w", context.Cause(ctx), bare(err))
	}
	return context.Cause(ctx) // it is the reason
}

// keep tells a client that was connected to that its master is there, until all are.
func (l *link) keep(all <-chan struct{}) {
	beats := time.NewTicker(l.cfg.Heartbeat)
	defer beats.Stop()
	for {
		select {
		case <-all:
			return
		case <-beats.C:
			if l.wire.send(message{Time: &timing{Asked: l.clock.now()}}) != nil {
				return // hear says why
			}
		}
	}
}

// reach opens the stream. A client that does not listen yet is tried again.
func (l *link) reach(ctx context.Context) error {
	var only http.Protocols
	only.SetHTTP2(true)
	l.transport = &http.Transport{
		TLSClientConfig: masterTLS(l.cfg.TLS), Protocols: &only, DisableCompression: true,
		TLSHandshakeTimeout: l.cfg.Patience,
	}
	var refused error
	for {
		in, out := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.addr+path, in)
		if err != nil {
			return err
		}
		answer, err := l.transport.RoundTrip(r) //nolint:bodyclose // close does
		if err == nil {
			return l.opened(answer, out)
		}
		out.Close()
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			refused = err
		case refused != nil && ctx.Err() != nil: // in the middle of another attempt
			return refused
		default:
			return bare(err)
		}
		if !pause.For(ctx, retry) {
			return refused
		}
	}
}

// bare says what a network error is without its addresses, which the caller names.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// opened takes the streams of an answer.
func (l *link) opened(answer *http.Response, out *io.PipeWriter) error {
	l.in, l.out = answer.Body, out
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it is no client of trace-replayer: %s", answer.Status)
	}
	l.wire = newWire(answer.Body, out, nil)
	var err error
	l.prover, err = newProver(l.key, answer.TLS)
	return err
}

// greet is the master's side of session.greet.
func (l *link) greet() error {
	ours := newNonce()
	if err := l.wire.send(message{Hello: &hello{Protocol, l.cfg.Version, ours}}); err != nil {
		return err
	}
	m, err := l.expect()
	if err != nil {
		return err
	}
	if m.Hello == nil {
		return errUnexpected
	}
	if err := m.Hello.differs(l.cfg.Version); err != nil {
		return err
	}
	code := l.prover.code(roleMaster, ours, m.Hello.Nonce)
	if err := l.wire.send(message{Auth: &auth{code, l.cfg.Heartbeat}}); err != nil {
		return err
	}
	want := l.prover.code(roleClient, ours, m.Hello.Nonce)
	if m, err = l.expect(); err != nil {
		return err
	}
	if m.Auth == nil {
		return errUnexpected
	}
	if !hmac.Equal(m.Auth.Code, want) {
		return ErrSecret
	}
	return nil
}

// expect returns the next message of one that is still a stranger. A refusal is an
// error.
func (l *link) expect() (message, error) {
	m, err := l.wire.receive(maxStrange)
	if err != nil {
		return m, fmt.Errorf("waiting for its answer: %w", err)
	}
	if m.Refused == nil {
		return m, nil
	}
	known, ok := refusals[m.Refused.Why]
	if !ok {
		return m, fmt.Errorf("it refused: %.1000q", m.Refused.Text)
	}
	return m, &refusedError{m.Refused.Text, known}
}

// refusedError is what a client said, and which error that is here.
type refusedError struct {
	text  string
	known error
}

// Error returns what was said without what would do something to a terminal: it was
// said by a stranger.
func (e *refusedError) Error() string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, fmt.Sprintf("%.1000s", e.text))
}

func (e *refusedError) Unwrap() error { return e.known }

// compare learns how far the clocks are apart.
func (l *link) compare() error {
	var best sample
	for n := range readings {
		if err := l.wire.send(message{Time: &timing{Asked: l.clock.now()}}); err != nil {
			return err
		}
		for {
			m, err := l.expect()
			if err != nil {
				return err
			}
			if m.Beat != nil {
				continue
			}
			if m.Time == nil {
				return errUnexpected
			}
			if s := l.clock.sampleOf(*m.Time); n == 0 || s.rtt < best.rtt {
				best = s
			}
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clocks = best
	return nil
}
