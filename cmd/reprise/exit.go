package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v3"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // the work failed, or check found problems
	exitUsage       = 2 // the command line makes no sense
	exitInterrupted = 130
)

// usageError is an error in the command line.
type usageError struct{ error }

// Unwrap returns the reason.
func (e usageError) Unwrap() error { return e.error }

// onUsageError marks errors of the flag parser.
func onUsageError(_ context.Context, _ *cli.Command, err error, _ bool) error {
	return usageError{err}
}

// exitCode says on w what went wrong, if anything did, and returns the exit
// code that goes with it.
func exitCode(err error, w io.Writer) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "reprise: interrupted")
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintf(w, "reprise: %v (see --help)\n", err)
		return exitUsage
	}
	fmt.Fprintf(w, "reprise: %v\n", err)
	return exitFailed
}
