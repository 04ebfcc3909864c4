package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/gc"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cmd/internal/warm"
	"github.com/reprise-containers/reprise/remote/upstream"
)

// CacheSnapshot is what the parts of a registry cache count, at one time.
type CacheSnapshot struct {
	Proxy    proxy.Stats
	Permit   permit.Stats
	Upstream upstream.Stats
	Fill     fill.Stats
	Cache    cache.Stats
	GC       gc.Stats
	Warm     warm.Stats
	Cluster  *cluster.Stats // nil: nothing is shared with other replicas

	MaxBytes int64 // of the disk
	Links    int   // of the index
	Scanned  bool
	LostLog  uint64 // requests the access log did not take
}

// Export exports what look returns, which is called once each time that somebody
// asks.
func (m *RegistryCache) Export(look func() CacheSnapshot) {
	m.registry.MustRegister(&snapshots{look: look, metrics: describe(cacheMetrics())})
}

// cacheMetric is one metric of a snapshot.
type cacheMetric struct {
	name, help string
	kind       prometheus.ValueType
	label      string // "": none
	values     func(s *CacheSnapshot, emit func(v float64, label ...string))
}

type described struct {
	cacheMetric
	desc *prometheus.Desc
}

// snapshots is a prometheus.Collector of all metrics of one look.
type snapshots struct {
	look    func() CacheSnapshot
	metrics []described
}

func describe(list []cacheMetric) (out []described) {
	for _, m := range list {
		var labels []string
		if m.label != "" {
			labels = []string{m.label}
		}
		out = append(out, described{m, prometheus.NewDesc(cachePrefix+m.name, m.help, labels, nil)})
	}
	return out
}

// Describe implements prometheus.Collector.
func (s *snapshots) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range s.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (s *snapshots) Collect(ch chan<- prometheus.Metric) {
	now := s.look()
	for _, m := range s.metrics {
		m.values(&now, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
		})
	}
}

// number is what counts and gauges are made of.
type number interface {
	~int | ~int64 | ~uint64
}

func one[N number](name, help string, kind prometheus.ValueType, value func(s *CacheSnapshot) N) cacheMetric {
	return cacheMetric{name, help, kind, "", func(s *CacheSnapshot, emit func(float64, ...string)) {
		emit(float64(value(s)))
	}}
}

func counter[N number](name, help string, value func(s *CacheSnapshot) N) cacheMetric {
	return one(name, help, prometheus.CounterValue, value)
}

func gauge[N number](name, help string, value func(s *CacheSnapshot) N) cacheMetric {
	return one(name, help, prometheus.GaugeValue, value)
}

// each is a counter for each of some values of a label.
func each(name, help, label string, values func(s *CacheSnapshot) map[string]int64) cacheMetric {
	return cacheMetric{name, help, prometheus.CounterValue, label, func(s *CacheSnapshot, emit func(float64, ...string)) {
		for v, n := range values(s) {
			emit(float64(n), v)
		}
	}}
}

// quotas is a gauge for each upstream that said something.
func quotas(name, help string, value func(h upstream.HostStats) (float64, bool)) cacheMetric {
	return cacheMetric{name, help, prometheus.GaugeValue, "host", func(s *CacheSnapshot, emit func(float64, ...string)) {
		for _, h := range s.Upstream.Hosts {
			if v, ok := value(h); ok {
				emit(v, h.Host)
			}
		}
	}}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
