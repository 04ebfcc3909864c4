package metrics

import (
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/remote/upstream"
)

// cachePrefix is that of all metrics of the registry cache.
const cachePrefix = "reprise_registry_cache_"

// RegistryCache is the set of metrics of a registry cache. It is told of requests
// and of what is asked upstream, and looks at what the rest counts when it is asked.
type RegistryCache struct {
	registry *prometheus.Registry

	requests        *prometheus.CounterVec
	requestSeconds  *prometheus.HistogramVec
	requestBytes    *prometheus.CounterVec
	aborted         *prometheus.CounterVec
	tagAge          prometheus.Histogram
	upstreamSeconds *prometheus.HistogramVec
	upstreamAnswers *prometheus.CounterVec
	hosts           names
	connections     atomic.Int64

	alike   atomic.Pointer[map[answeredKey]*answered] // never changed, replaced
	growing sync.Mutex
}

// NewRegistryCache returns the metrics of one registry cache.
func NewRegistryCache() *RegistryCache {
	m := &RegistryCache{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: cachePrefix + "requests_total",
			Help: "Requests by kind (blobs, manifests, ...), outcome (hit, miss, ...) and status code.",
		}, []string{"kind", "outcome", "code"}),
		requestSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    cachePrefix + "request_seconds",
			Help:    "Duration of requests to the end of their answers, by kind and outcome.",
			Buckets: prometheus.ExponentialBuckets(250e-6, 4, 12), // 250 us to 17 min
		}, []string{"kind", "outcome"}),
		requestBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: cachePrefix + "sent_bytes_total", Help: "Bytes of bodies sent to clients, by kind and outcome.",
		}, []string{"kind", "outcome"}),
		aborted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: cachePrefix + "aborted_total", Help: "Answers that were cut off, by the client or by the cache, by kind.",
		}, []string{"kind"}),
		tagAge: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    cachePrefix + "tag_age_seconds",
			Help:    "Time since the upstream last said where a tag leads, of tags that were served without asking it.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 10), // 1 s to 3 days
		}),
		upstreamSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    cachePrefix + "upstream_seconds",
			Help:    "Time to the head of an upstream's answer, by host and by what was asked for (check, manifest or list, blob).",
			Buckets: prometheus.ExponentialBuckets(1e-3, 2, 17), // 1 ms to 65 s
		}, []string{"host", "request"}),
		upstreamAnswers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: cachePrefix + "upstream_answers_total", Help: "Answers of upstreams by host and status code, \"error\" where there was none.",
		}, []string{"host", "code"}),
	}
	m.registry.MustRegister(m.requests, m.requestSeconds, m.requestBytes, m.aborted, m.tagAge, m.upstreamSeconds, m.upstreamAnswers,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: cachePrefix + "connections", Help: "Connections of clients.",
		}, func() float64 { return float64(m.connections.Load()) }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered are the metrics of requests that ended alike, looked up once: by their
// labels a look-up takes as long as much else of a hit does.
type answered struct {
	requests, bytes prometheus.Counter
	seconds         prometheus.Observer
}

// answeredKey is what requests have in common that ended alike.
type answeredKey struct {
	kind    string
	outcome proxy.Outcome
	status  int
}

// Observe implements proxy.Observer.
func (m *RegistryCache) Observe(r proxy.Record) {
	a := m.answered(answeredKey{r.Kind, r.Outcome, r.Status})
	a.requests.Inc()
	a.seconds.Observe(r.Duration.Seconds())
	a.bytes.Add(float64(r.Bytes))
	if r.Aborted {
		m.aborted.WithLabelValues(r.Kind).Inc()
	}
	if r.TagAge > 0 {
		m.tagAge.Observe(r.TagAge.Seconds())
	}
}

// answered returns the metrics for k. There are as many as kinds, outcomes and status
// codes of the handler and of upstreams' refusals.
func (m *RegistryCache) answered(k answeredKey) *answered {
	known := m.alike.Load()
	if known != nil {
		if a := (*known)[k]; a != nil {
			return a
		}
	}
	m.growing.Lock()
	defer m.growing.Unlock()
	next := make(map[answeredKey]*answered)
	if known = m.alike.Load(); known != nil {
		maps.Copy(next, *known)
	}
	if next[k] == nil {
		kind, outcome := k.kind, string(k.outcome)
		next[k] = &answered{
			requests: m.requests.WithLabelValues(kind, outcome, strconv.Itoa(k.status)),
			bytes:    m.requestBytes.WithLabelValues(kind, outcome),
			seconds:  m.requestSeconds.WithLabelValues(kind, outcome),
		}
		m.alike.Store(&next)
	}
	return next[k]
}

// ObserveUpstream is told of each request that got to an upstream.
func (m *RegistryCache) ObserveUpstream(o upstream.Observation) {
	host := m.hosts.bounded(o.Host)
	code := "error"
	if o.Status != 0 {
		code = strconv.Itoa(o.Status)
	}
	m.upstreamAnswers.WithLabelValues(host, code).Inc()
	if o.Status == 0 {
		return
	}
	request := "manifest"
	switch {
	case o.Method == http.MethodHead:
		request = "check"
	case o.Blob:
		request = "blob"
	}
	m.upstreamSeconds.WithLabelValues(host, request).Observe(o.Took.Seconds())
}

// ConnState counts connections, as http.Server.ConnState.
func (m *RegistryCache) ConnState(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		m.connections.Add(1)
	case http.StateClosed, http.StateHijacked:
		m.connections.Add(-1)
	}
}

// Handler serves /metrics, /healthz, which answers as long as the process does, and
// /readyz, which answers 503 unless ready returns true.
func (m *RegistryCache) Handler(ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not serving", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// maxNames is how many hosts have metrics of their own: clients may name as many as
// a rule lets them, and registries redirect to many.
const maxNames = 64

// names bounds the values of a label. The zero value is ready for use.
type names struct {
	mu    sync.Mutex
	known map[string]bool
}

// bounded returns name, or "other" if there are too many already.
func (n *names) bounded(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[name] {
		return name
	}
	if len(n.known) >= maxNames {
		return "other"
	}
	if n.known == nil {
		n.known = make(map[string]bool)
	}
	n.known[name] = true
	return name
}
