package replay

import (
	"slices"
	"time"
)

const (
	// remember is for how long, at least, a shortest time to the first byte
	// counts.
	remember = 30 * time.Second
	// tryAgain is how long after an attempt to have more in flight that gained
	// nothing there is another, and twice as long after the next, up to
	// tryRarely: on a busy machine, one may fail by chance.
	tryAgain, tryRarely = time.Second, time.Minute
	// verdict is how many measurements may fail to show a gain before there is
	// none.
	verdict = 3
	// bestFor is how long a bandwidth keeps the window from getting smaller, at
	// least.
	bestFor = 2 * time.Second
	// shortest is the least time that a bandwidth is measured over.
	shortest = 10 * time.Millisecond
	// boldly and carefully are what a window is multiplied with to find out
	// whether it limits, in quarters: as long as that gained much, and since it
	// did not.
	boldly, carefully, quarters = 8, 5, 4
	// worth is by what factor the bandwidth must grow with a larger window, for
	// that to be kept.
	worth = 1.1
	// much is by what factor it must grow for the line to be far from full.
	much = 1.5
	// samples is how many measurements a bandwidth is the middle of: when this
	// machine is busy, some are too low, and the next one is too high.
	samples = 5
	// limiting is the part of the window in flight that says that the window,
	// not the line, is what limits: a kernel may allow less than it is told.
	limiting = 0.6
	// headroom is how much larger than what one round trip carries the window
	// is: an eighth of it never is in flight (transport.Window), and a
	// measurement that came out too low must not last.
	headroom = 1.15
	// leastRate is what any line is taken to carry at first, bytes a second.
	leastRate = 25e6 / 8
)

// meter measures a line: round trip, bandwidth, and how much has to be in flight
// for the line to be full.
//
// What is measured with too little in flight is the window and not the line. So
// the window is doubled as long as that gains something; when it does not, it
// becomes what one round trip carries.
type meter struct {
	now, before time.Duration // shortest time to first byte of this and the last period, 0: none
	since       time.Time     // begin of the period

	recent []float64 // bandwidths measured last, bytes a second
	rate   float64   // the middle of them, 0: unknown
	window int64     // bytes, of all senders together

	// best and bestBefore are the highest bandwidths of this and the last
	// bestFor: the window gets smaller only if they do.
	best, bestBefore float64
	bestSince        time.Time

	tries   int           // measurements left to tell whether a larger window is worth it, 0: there is no larger one
	rateWas float64       // before that
	careful bool          // an attempt gained little
	hold    time.Time     // no larger window until then
	pause   time.Duration // between the last attempt and hold

	// The measurement under way: bytes since start, once skip bytes have come
	// in and it is time.
	start time.Time
	from  time.Time
	skip  int64
	bytes int64
}

func newMeter() meter { return meter{window: minWindow} }

// roundTrip returns the shortest time to a first byte lately, 0 if unknown.
func (m *meter) roundTrip() time.Duration {
	if m.before > 0 && (m.now == 0 || m.before < m.now) {
		return m.before
	}
	return m.now
}

// transfer returns how long the line takes for n bytes, as far as known.
func (m *meter) transfer(n int64) time.Duration {
	if m.rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / m.rate * float64(time.Second))
}

// answered notes the time that an answer took to begin.
func (m *meter) answered(took time.Duration, now time.Time) {
	if took <= 0 {
		return
	}
	if now.Sub(m.since) > remember {
		m.before, m.now, m.since = m.now, 0, now
	}
	if m.now == 0 || took < m.now {
		m.now = took
	}
	if m.rate == 0 {
		m.window = m.fit(leastRate)
	}
}

// read notes a read of n bytes.
func (m *meter) read(n int, took time.Duration, now time.Time) {
	const small = 64 << 10 // in larger ones the begin of the answer does not show
	if n <= small {
		m.answered(max(took-m.transfer(int64(n)), took/2), now)
	} else if r := float64(n) / took.Seconds(); r > m.rate {
		m.recent, m.rate = append(m.recent[:0], r), r
		m.window = max(m.window, m.fit(r))
	}
}

// fit returns what one round trip carries at a rate, as a window.
func (m *meter) fit(rate float64) int64 {
	return min(max(int64(headroom*rate*m.roundTrip().Seconds()), minWindow), maxWindow)
}

// reset ends the measurement under way. The next one begins when what piled up
// meanwhile is through and the line is in use again.
func (m *meter) reset() { m.from, m.start = time.Time{}, time.Time{} }

// arrived notes that n bytes of all senders came in.
func (m *meter) arrived(n int64, now time.Time) {
	if m.from.IsZero() {
		m.from, m.skip = now.Add(m.roundTrip()), m.window
	}
	if m.skip > 0 || now.Before(m.from) {
		m.skip -= n
		return
	}
	if m.start.IsZero() {
		m.start, m.bytes = now, 0
		return
	}
	m.bytes += n
	took := now.Sub(m.start)
	if m.bytes < m.window || took < max(m.roundTrip(), shortest) {
		return
	}
	rate := float64(m.bytes) / took.Seconds()
	m.start, m.bytes = now, 0
	m.sample(rate, now)
}

// sample takes a bandwidth that was measured with the window in use.
func (m *meter) sample(rate float64, now time.Time) {
	if len(m.recent) == samples {
		m.recent = m.recent[1:]
	}
	m.recent = append(m.recent, rate)
	sorted := slices.Sorted(slices.Values(m.recent))
	m.rate = sorted[len(sorted)/2]
	if now.Sub(m.bestSince) > bestFor {
		m.bestBefore, m.best, m.bestSince = m.best, 0, now
	}
	m.best = max(m.best, rate)
	if m.tries > 0 {
		m.judge(rate, now)
		return
	}
	if best := max(m.best, m.bestBefore); best*m.roundTrip().Seconds() < limiting*float64(m.window) {
		m.window = m.fit(best)
		return
	}
	// The window limits. It stays as it is, for what is measured now says little
	// about the line, or grows.
	if !now.Before(m.hold) && m.window < maxWindow {
		m.grow(m.rate, now)
	}
}

// grow tries a larger window, with the bandwidth that there was before. What comes
// until that shows is not measured.
func (m *meter) grow(rate float64, now time.Time) {
	m.tries, m.rateWas = verdict, rate
	step := int64(boldly)
	if m.careful {
		step = carefully
	}
	m.window = min(m.window*step/quarters, maxWindow)
	m.from, m.skip, m.start = now.Add(m.roundTrip()), 0, time.Time{}
}

// judge decides whether the larger window is worth it.
func (m *meter) judge(rate float64, now time.Time) {
	if rate >= worth*m.rateWas {
		m.recent, m.rate = append(m.recent[:0], rate), rate
		m.tries, m.pause = 0, 0
		m.careful = m.careful || rate < much*m.rateWas
		if rate*m.roundTrip().Seconds() >= limiting*float64(m.window) && m.window < maxWindow {
			m.grow(rate, now)
		}
		return
	}
	if m.tries--; m.tries == 0 {
		m.window = m.fit(max(m.best, m.bestBefore))
		m.careful = true
		m.pause = min(max(2*m.pause, tryAgain), tryRarely)
		m.hold = now.Add(m.pause)
	}
}
