package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// Prefetch counts what is fetched ahead, and what that is good for. It is a
// replay.Observer.
type Prefetch struct {
	extents, bytes               prometheus.Counter
	usedExtents, usedBytes       prometheus.Counter
	missedExtents, missedBytes   prometheus.Counter
	skippedExtents, skippedBytes *prometheus.CounterVec
	ahead                        prometheus.Histogram
	images                       *prometheus.CounterVec
}

var _ replay.Observer = (*Prefetch)(nil)

// Prefetch returns the metrics of what is fetched ahead. Images come to one of
// outcomes. It is called once.
func (m *Metrics) Prefetch(outcomes []string) *Prefetch {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		m.registry.MustRegister(c)
		return c
	}
	p := &Prefetch{
		extents:        counter("reprise_prefetch_extents_total", "Extents of layers, the records of a plan, that were fetched for a trace."),
		bytes:          counter("reprise_prefetch_bytes_total", "Bytes of layers that were fetched for a trace."),
		usedExtents:    counter("reprise_prefetch_used_extents_total", "Fetched extents of which something was read later."),
		usedBytes:      counter("reprise_prefetch_used_bytes_total", "Bytes of fetched extents of which something was read later."),
		missedExtents:  counter("reprise_prefetch_missed_extents_total", "Extents that somebody needed before they came, those in flight included."),
		missedBytes:    counter("reprise_prefetch_missed_bytes_total", "Bytes of extents that somebody needed before they came."),
		skippedExtents: vec("reprise_prefetch_skipped_extents_total", "Extents of traces that were not fetched, by reason.", "reason"),
		skippedBytes:   vec("reprise_prefetch_skipped_bytes_total", "Bytes of extents that were not fetched, by reason.", "reason"),
		images:         vec("reprise_prefetch_images_total", "Images with a trace that were pulled or attached, by what came of the trace.", "outcome"),
		ahead: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "reprise_prefetch_ahead_seconds",
			Help:    "Time from when a range was fetched for a trace to when it was first read.",
			Buckets: prometheus.ExponentialBuckets(1e-3, 4, 12), // 1 ms to 70 min
		}),
	}
	m.registry.MustRegister(p.ahead)
	for _, why := range []replay.Skipped{replay.SkippedPresent, replay.SkippedBudget, replay.SkippedInvalid, replay.SkippedCorrupt, replay.SkippedFailed} {
		p.skippedExtents.WithLabelValues(why.String())
		p.skippedBytes.WithLabelValues(why.String())
	}
	for _, o := range outcomes {
		p.images.WithLabelValues(o)
	}
	return p
}

// Image counts what came of an image.
func (p *Prefetch) Image(outcome string) { p.images.WithLabelValues(outcome).Inc() }

// Prefetched implements replay.Observer.
func (p *Prefetch) Prefetched(n int64) {
	p.extents.Inc()
	p.bytes.Add(float64(n))
}

// Skipped implements replay.Observer.
func (p *Prefetch) Skipped(why replay.Skipped, n int64) {
	p.skippedExtents.WithLabelValues(why.String()).Inc()
	p.skippedBytes.WithLabelValues(why.String()).Add(float64(n))
}

// Used implements replay.Observer.
func (p *Prefetch) Used(n int64, ahead time.Duration) {
	p.usedExtents.Inc()
	p.usedBytes.Add(float64(n))
	p.ahead.Observe(ahead.Seconds())
}

// Missed implements replay.Observer.
func (p *Prefetch) Missed(n int64) {
	p.missedExtents.Inc()
	p.missedBytes.Add(float64(n))
}
