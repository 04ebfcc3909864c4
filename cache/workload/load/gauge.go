package load

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// When the generator is said to be saturated.
const (
	lagTolerated = 10 * time.Millisecond // of the 99th percentile,
	lagOfService = 0.05                  // and as a share of the median service time
	cpuFull      = 0.9                   // of all processors
	cpuPeriod    = time.Second           // over which it is measured
	cpuPeriods   = 0.1                   // share of periods that may be full
)

// gauge measures how well the generator does.
type gauge struct {
	mu           sync.Mutex
	s            Stats
	lag, service *hdrhistogram.Histogram // microseconds
	exhausted    uint64
	periods      uint64 // of the processor's use that were measured
	full         uint64 // of those, with hardly any of it left
	since        time.Time
	used         time.Duration // of the processors, at since
}

// begin starts measuring.
func (g *gauge) begin(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lag = hdrhistogram.New(1, time.Hour.Microseconds(), 3)
	g.service = hdrhistogram.New(1, time.Hour.Microseconds(), 3)
	g.since, g.used = now, processorTime()
}

func (g *gauge) sent() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.s.Sent++
	g.s.InFlight++
	g.s.MaxInFlight = max(g.s.MaxInFlight, g.s.InFlight)
}

func (g *gauge) cap() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.s.Capped++
}

// ended takes in a result.
func (g *gauge) ended(r *Result, err error) {
	out := err != nil && exhausted(err)
	at := r.Sent.Add(r.Service)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.s.Ended++
	g.s.InFlight--
	if out {
		g.exhausted++
	}
	g.s.LagMax = max(g.s.LagMax, r.Late)
	record(g.lag, r.Late)
	if r.Status != 0 {
		record(g.service, r.Service)
	}
	if at.Sub(g.since) >= cpuPeriod {
		g.sample(at)
	}
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), h.HighestTrackableValue())) // it is within the bounds
}

// end measures what is left of the last period, if it is enough to judge.
func (g *gauge) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); !g.since.IsZero() && now.Sub(g.since) >= cpuPeriod/4 {
		g.sample(now)
	}
}

// sample ends a period.
func (g *gauge) sample(now time.Time) {
	used := processorTime()
	all := now.Sub(g.since) * time.Duration(runtime.GOMAXPROCS(0))
	if g.periods++; float64(used-g.used) > cpuFull*float64(all) {
		g.full++
	}
	g.since, g.used = now, used
}

// processorTime returns what the process used of the processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stats returns what was measured. Of a closed loop being late says something about
// the registry and not about the generator.
func (g *gauge) stats(closed bool) Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.s
	if g.lag == nil {
		return s
	}
	s.LagP99 = micros(g.lag, 99)
	if s.LagP99 > s.LagMax { // the histogram's buckets are wider than that
		s.LagP99 = s.LagMax
	}
	median := micros(g.service, 50)
	if !closed && s.LagP99 > lagTolerated && float64(s.LagP99) > lagOfService*float64(median) {
		s.Saturated = append(s.Saturated, fmt.Sprintf("one request in a hundred was sent %v late or more, with a median service time of %v", s.LagP99.Round(time.Microsecond), median))
	}
	if s.Capped > 0 {
		s.Saturated = append(s.Saturated, fmt.Sprintf("%d requests waited because %d were under way", s.Capped, s.MaxInFlight))
	}
	if float64(g.full) > cpuPeriods*float64(g.periods) {
		s.Saturated = append(s.Saturated, fmt.Sprintf("this process used more than %.0f %% of all processors for %.0f %% of the time", cpuFull*100, 100*float64(g.full)/float64(g.periods)))
	}
	if g.exhausted > 0 {
		s.Saturated = append(s.Saturated, fmt.Sprintf("%d requests found no port, file or buffer left on this machine", g.exhausted))
	}
	return s
}

func micros(h *hdrhistogram.Histogram, percentile float64) time.Duration {
	return time.Duration(h.ValueAtQuantile(percentile)) * time.Microsecond
}
