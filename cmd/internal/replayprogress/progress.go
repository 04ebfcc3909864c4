// Package replayprogress shows how far a replay is: a bar with rate, lag, errors and
// the time left on a terminal, a line now and then elsewhere.
package replayprogress

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

const (
	// every is how often there is a line where there is no terminal.
	every = 10 * time.Second
	// window is how far back the rate looks.
	window = 5 * time.Second
)

// State is how far something is.
type State struct {
	Fraction float64 // of it that is done; negative where nobody knows
	report.Totals
}

// During runs work and, meanwhile, shows what state returns on w, which may be nil to
// show nothing. state is called from another goroutine than work.
func During(ctx context.Context, w io.Writer, state func() State, work func(context.Context) error) error {
	if w == nil {
		return work(ctx)
	}
	m := &meter{start: time.Now()}
	if !terminal.Is(w) {
		return lines(w, func() string { return m.text(time.Now(), state()) }, func() error { return work(ctx) })
	}
	return terminal.WithBar(w, func() (int64, int64, string) {
		const full = 10_000
		s := state()
		text := m.text(time.Now(), s)
		if s.Fraction < 0 {
			return 0, 0, text
		}
		return int64(full * min(s.Fraction, 1)), full, text
	}, func() error { return work(ctx) })
}

// lines runs work and writes what text returns to w now and then.
func lines(w io.Writer, text func() string, work func() error) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintln(w, text())
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return work()
}

// meter knows how fast things went.
type meter struct {
	start time.Time
	past  []sample // of the window, and the last one before it
}

type sample struct {
	at       time.Time
	requests int64
}

// rate notes how many requests were done at a time and returns how many there were a
// second within the window.
func (m *meter) rate(now time.Time, requests int64) float64 {
	m.past = append(m.past, sample{now, requests})
	for len(m.past) > 2 && now.Sub(m.past[1].at) >= window {
		m.past = m.past[1:]
	}
	first := sample{at: m.start}
	if len(m.past) > 1 {
		first = m.past[0]
	}
	return report.Ratio(float64(requests-first.requests), now.Sub(first.at).Seconds())
}

// text is what is said of s.
func (m *meter) text(now time.Time, s State) string {
	var b strings.Builder
	if s.Fraction >= 0 {
		fmt.Fprintf(&b, "%.0f %%, ", 100*min(s.Fraction, 1))
	}
	fmt.Fprintf(&b, "%d requests, %.0f/s, late %s, %d failed", s.Requests, m.rate(now, s.Requests), report.Time(max(s.Lag, 0).Microseconds()), s.Failed)
	if s.Hits+s.Misses > 0 {
		fmt.Fprintf(&b, ", %.0f %% hits", 100*report.Ratio(float64(s.Hits), float64(s.Hits+s.Misses)))
	}
	// Too early nobody knows.
	if s.Fraction >= .01 && s.Fraction < 1 {
		left := time.Duration(float64(now.Sub(m.start)) * (1 - s.Fraction) / s.Fraction)
		fmt.Fprintf(&b, ", %s left", left.Round(time.Second))
	}
	return b.String()
}
