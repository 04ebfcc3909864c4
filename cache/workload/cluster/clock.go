package cluster

import "time"

// clock tells the time of day at which it was made and what passed since then. It
// does not step when the machine's clock is set.
type clock struct {
	made  time.Time
	ahead time.Duration // of the machine's clock, in tests
}

func newClock(ahead time.Duration) clock { return clock{time.Now(), ahead} }

// now returns ns since 1970.
func (c clock) now() int64 { return c.of(time.Now()) }

// of returns a time as now would have told it.
func (c clock) of(t time.Time) int64 {
	return c.made.UnixNano() + int64(c.ahead+t.Sub(c.made))
}

// time returns when now is or was what is given.
func (c clock) time(ns int64) time.Time {
	return c.made.Add(time.Duration(ns-c.made.UnixNano()) - c.ahead)
}

// sample is an answer to the question for the time.
type sample struct {
	offset time.Duration // of the other's clock before this one's
	rtt    time.Duration
}

// sampleOf returns what an answer that comes now says.
func (c clock) sampleOf(t timing) sample {
	now := c.now()
	rtt := time.Duration(now - t.Asked)
	return sample{time.Duration(t.Told-t.Asked) - rtt/2, rtt}
}
