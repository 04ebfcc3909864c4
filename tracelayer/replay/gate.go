package replay

import (
	"context"
	"time"
)

const (
	// lookAgain is how often a closed gate looks whether something changed that
	// nobody tells it.
	lookAgain = 10 * time.Millisecond
	// longestClosed is how long a gate is closed at most, if that is more than
	// closedTrips round trips.
	longestClosed = 250 * time.Millisecond
	closedTrips   = 4
)

// gate lets prefetch by or makes it wait for reads that go first.
type gate struct {
	line *Line // nil: it is always open
	// urgent reports whether somebody waits for what is behind the gate.
	urgent func() bool
	// credit is how many bytes may pass without a look, so that many reads, one
	// after the other or at the same time, do not keep prefetch away for ever.
	// It is given when the gate opens, and no more than what is in flight then:
	// that lies at this end of the line, or soon will, and whatever it makes
	// room for takes its place.
	credit int
	// grant returns the credit to give.
	grant func() int
}

// pass returns when prefetch may go on.
func (g *gate) pass(ctx context.Context) error {
	if g.line == nil || g.credit > 0 {
		return ctx.Err()
	}
	first := g.line.pressure()
	if !first.needed || g.urgent() {
		return ctx.Err()
	}
	g.line.interrupted()
	g.line.mu.Lock()
	until := time.Now().Add(max(longestClosed, closedTrips*g.line.meter.roundTrip()))
	g.line.mu.Unlock()
	for now := first; now.needed && now.opened == first.opened && !g.urgent() && time.Now().Before(until); now = g.line.pressure() {
		t := time.NewTimer(lookAgain)
		select {
		case <-now.changed:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		t.Stop()
	}
	g.credit = g.grant()
	return ctx.Err()
}

// passed notes that n bytes went through.
func (g *gate) passed(n int) { g.credit = max(g.credit-n, 0) }
