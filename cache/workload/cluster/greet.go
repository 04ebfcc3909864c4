package cluster

import (
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Bounds of the time between heartbeats.
const (
	minBeat = 10 * time.Millisecond
	maxBeat = time.Hour
)

// errUnexpected is of a line that has no place where it came.
var errUnexpected = errors.New("a message came that has no place here")

// differs returns an error if the other side is of another version.
func (h *hello) differs(version string) error {
	if h.Protocol == Protocol && h.Version == version {
		return nil
	}
	return fmt.Errorf("%w: %.64q (protocol %d) here, %.64q (protocol %d) there", ErrVersion,
		version, Protocol, h.Version, h.Protocol)
}

// greet makes sure of the master: of its version, and that it knows the secret. It
// proves itself first, so that a stranger who connects is told no code to guess by.
func (x *session) greet(state *tls.ConnectionState) error {
	p, err := newProver(x.key, state)
	if err != nil {
		return err
	}
	m, err := x.wire.receive(maxStrange)
	if err != nil {
		return fmt.Errorf("reading who the master is: %w", err)
	}
	if m.Hello == nil {
		return errUnexpected
	}
	theirs, ours := m.Hello.Nonce, newNonce()
	if err := x.wire.send(message{Hello: &hello{Protocol, x.cfg.Version, ours}}); err != nil {
		return err
	}
	if err := m.Hello.differs(x.cfg.Version); err != nil {
		return x.refuse("version", err)
	}
	m, err = x.wire.receive(maxStrange)
	if err != nil {
		return fmt.Errorf("reading the master's proof: %w", err)
	}
	if m.Auth == nil {
		return errUnexpected
	}
	if !hmac.Equal(m.Auth.Code, p.code(roleMaster, theirs, ours)) {
		return x.refuse("secret", ErrSecret)
	}
	x.beat = min(max(m.Auth.Beat, minBeat), maxBeat)
	x.proof = p.code(roleClient, theirs, ours)
	return nil
}

// welcome proves to the master that the client knows the secret too.
func (x *session) welcome() error {
	return x.wire.send(message{Auth: &auth{Code: x.proof}})
}

// refuse tells the master why nothing is done for it, and returns that.
func (x *session) refuse(why string, err error) error {
	if sent := x.wire.send(message{Refused: &refusal{why, err.Error()}}); sent != nil {
		return errors.Join(err, sent)
	}
	return err
}
