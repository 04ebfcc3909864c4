package replay_test

import (
	"testing"
	"time"

	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// simulate sends for a time over a line of a bandwidth and a round trip, with as
// much in flight as the meter says, or part of that, and returns how many bytes
// a second came in the last half of the time.
func simulate(m *replay.Meter, rate float64, roundTrip time.Duration, part float64, took time.Duration) float64 {
	const segment = 1448
	now := time.Unix(1000, 0)
	end, half := now.Add(took), now.Add(took/2)
	m.Answered(roundTrip, now)
	var asked []time.Time // when what is in flight was asked for
	var free time.Time
	var got float64
	for now.Before(end) {
		for float64(len(asked)*segment) < part*float64(m.Window()) {
			asked = append(asked, now)
		}
		// The line carries one segment after the other, each half a round
		// trip after it was sent, which is as long after it was asked for.
		at := asked[0].Add(roundTrip / 2)
		if free.After(at) {
			at = free
		}
		free = at.Add(time.Duration(segment / rate * float64(time.Second)))
		now = free.Add(roundTrip / 2)
		asked = asked[1:]
		m.Arrived(segment, now)
		if now.After(half) {
			got += segment
		}
	}
	return got / end.Sub(half).Seconds()
}

// The window grows until the line is full, whatever part of it is in flight, and
// no further than a round trip carries.
func TestMeter(t *testing.T) {
	for _, c := range []struct {
		mbit      float64
		roundTrip time.Duration
	}{
		{25, 200 * time.Microsecond}, {25, 4 * time.Millisecond}, {25, 40 * time.Millisecond}, {2, 100 * time.Millisecond},
		{200, 200 * time.Microsecond}, {200, 4 * time.Millisecond}, {200, 40 * time.Millisecond}, {1000, 80 * time.Millisecond},
	} {
		for _, part := range []float64{0.85, 1} {
			m := replay.NewMeter()
			rate := c.mbit * 1e6 / 8
			got := simulate(m, rate, c.roundTrip, part, 4*time.Second)
			most := max(64<<10, 1.45*rate*c.roundTrip.Seconds()) // an attempt may be under way
			if got < 0.9*rate || float64(m.Window()) > most {
				t.Errorf("%g Mbit/s, %s, %g in flight: %.1f Mbit/s, window %d, want at most %.0f, rate %.1f Mbit/s",
					c.mbit, c.roundTrip, part, got*8/1e6, m.Window(), most, m.Rate()*8/1e6)
			}
		}
	}
}
