package gc

import "time"

// reading is what two clocks say at one moment: the one that people set, and the
// one that only ever goes on.
type reading struct {
	wall time.Duration // since 1970
	mono time.Duration // since the program started
}

var started = time.Now()

func readClock() reading {
	return reading{wall: time.Duration(time.Now().UnixNano()), mono: time.Since(started)}
}

// jumpAfter is how far the clocks may part between two collections.
const jumpAfter = time.Minute

// since returns by how much the clock was set between b and a. A machine that
// slept looks as if it had been set forward.
func (a reading) since(b reading) time.Duration { return (a.wall - b.wall) - (a.mono - b.mono) }

// jumped reports whether the clock was set since it was last asked. Then nothing is
// said of ages, once: what was noted by one clock is not to be judged by another in
// the moment of change, and a clock that is wrong for a moment costs nothing.
func (g *Collector) jumped() bool {
	now := readClock()
	by := now.since(g.clock)
	g.clock = now
	return by.Abs() > jumpAfter
}

// futureAfter is how far a time may lie ahead and still be taken for now.
const futureAfter = time.Minute

// future tells the age of what was noted by a clock that was ahead of ours. It is as
// of now when it is first seen, and ages from then on: nothing goes because a clock
// was put back, and nothing stays for ever.
type future struct {
	seen, before map[string]time.Time // by what; of this round and the one before
}

// age returns how long ago t was, which was noted of what.
func (f *future) age(what string, now, t time.Time) time.Duration {
	if !t.After(now.Add(futureAfter)) {
		return max(0, now.Sub(t))
	}
	first, ok := f.before[what]
	if !ok {
		first, ok = f.seen[what]
	}
	if !ok {
		first = now
	}
	if f.seen == nil {
		f.seen = make(map[string]time.Time)
	}
	f.seen[what] = first
	return now.Sub(first)
}

// turn ends a round: what was not asked for in it is forgotten.
func (f *future) turn() { f.seen, f.before = nil, f.seen }
