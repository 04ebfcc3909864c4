package cluster

import (
	"errors"
	"fmt"
)

// Errors that a master's run ends with. They are wrapped in a ClientError.
var (
	// ErrNoSecret is of a configuration.
	ErrNoSecret = errors.New("there is no secret, and other machines are not to be trusted without one")
	// ErrSecret is of a peer that has another secret, or of one in between.
	ErrSecret = errors.New("master and client do not have the same secret")
	// ErrVersion is of a peer of another version.
	ErrVersion = errors.New("master and client are of different versions")
	// ErrBusy is of a client that has another master's job.
	ErrBusy = errors.New("the client is busy")
	// ErrSilent is of a peer that was not heard of.
	ErrSilent = errors.New("nothing was heard from it")
	// ErrGone is of a peer whose connection ended.
	ErrGone = errors.New("its connection ended")
)

// ClientError is what a client was lost of, or why it did not begin.
type ClientError struct {
	Client string // its address
	Err    error
}

func (e *ClientError) Error() string { return fmt.Sprintf("client %s: %v", e.Client, e.Err) }
func (e *ClientError) Unwrap() error { return e.Err }
