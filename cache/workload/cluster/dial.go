package cluster

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
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
	if err != nil && ctx.Err() != nil { // it is the reason
		return context.Cause(ctx)
	}
	return err
}

// reach opens the stream. A client that does not listen yet is tried again.
func (l *link) reach(ctx context.Context) error {
	var only http.Protocols
	only.SetHTTP2(true)
	l.transport = &http.Transport{
		TLSClientConfig: masterTLS(l.cfg.TLS), Protocols: &only, DisableCompression: true,
		TLSHandshakeTimeout: l.cfg.Patience,
	}
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
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return bare(err)
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return err
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

func (e *refusedError) Error() string { return fmt.Sprintf("%.1000s", e.text) }
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
