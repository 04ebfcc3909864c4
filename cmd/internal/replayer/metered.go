package replayer

import (
	"sync/atomic"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
)

// metered counts what is read of a trace.
type metered struct {
	r  trace.Reader
	of int64 // requests; 0: nobody knows
	n  atomic.Int64
}

// Next implements trace.Reader.
func (m *metered) Next() (trace.Request, error) {
	x, err := m.r.Next()
	if err == nil {
		m.n.Add(1)
	}
	return x, err
}

func (m *metered) state() replayprogress.State {
	n := m.n.Load()
	s := replayprogress.State{Fraction: -1, Totals: report.Totals{Requests: n}}
	if m.of > 0 {
		s.Fraction = float64(n) / float64(m.of)
	}
	return s
}
