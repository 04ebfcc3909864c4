package replay

import "time"

// Meter is a meter with a clock of the test's.
type Meter struct{ m meter }

// NewMeter returns a meter that knows nothing.
func NewMeter() *Meter { return &Meter{newMeter()} }

// Answered, Arrived and Window are those of a meter.
func (m *Meter) Answered(took time.Duration, now time.Time) { m.m.answered(took, now) }

// Arrived notes bytes that came.
func (m *Meter) Arrived(n int64, now time.Time) { m.m.arrived(n, now) }

// Window returns how much may be in flight.
func (m *Meter) Window() int64 { return m.m.window }

// Rate returns the bandwidth.
func (m *Meter) Rate() float64 { return m.m.rate }

// Watched returns how many extents are watched.
func (u *Use) Watched() (n int) {
	if now := u.now.Load(); now != nil {
		for _, w := range *now {
			n += len(w.marks)
		}
	}
	return n
}
