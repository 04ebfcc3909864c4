package blob

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrReadDeadline is in the chain of errors of reads that were given up
// because RetryConfig.Deadline passed.
var ErrReadDeadline = errors.New("read deadline passed")

// Temporary is implemented by errors that know whether the same read may
// succeed later. The outermost one in a chain of errors decides, so whoever
// wraps an error of package net must implement it: there, Temporary is false
// for a refused connection.
type Temporary interface {
	Temporary() bool
}

// RetryAfter is implemented by errors that carry the source's wish for how long
// to wait before the next try; zero or less means none was given.
type RetryAfter interface {
	RetryAfter() time.Duration
}

type permanentError struct{ err error }

func (e permanentError) Error() string   { return e.err.Error() }
func (e permanentError) Unwrap() error   { return e.err }
func (e permanentError) Temporary() bool { return false }

// Permanent marks err as one that no retry cures.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// IsPermanent reports whether a read that ended with err is not worth
// retrying. Errors that do not say (see Temporary) are worth it: giving up is
// what RetryConfig is for.
func IsPermanent(err error) bool {
	if t, ok := errors.AsType[interface {
		error
		Temporary
	}](err); ok {
		return !t.Temporary()
	}
	return err == io.EOF || errors.Is(err, context.Canceled) //nolint:errorlint // one that wraps it is another error
}
