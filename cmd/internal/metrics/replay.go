package metrics

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
)

// replayPrefix is that of all metrics of a replay.
const replayPrefix = "reprise_replay_"

// Replay is the set of metrics of a replay that is going on. It is told of results.
type Replay struct {
	registry *prometheus.Registry
	bases    []string // of registries, by their index

	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	failures *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	service  *prometheus.HistogramVec
	lag      prometheus.Histogram
	onTime   prometheus.Counter

	outcomes, codes names

	mu    sync.Mutex
	alike map[replayKey]*replayed
}

// replayKey is what results have in common that are counted alike.
type replayKey struct {
	kind, op, outcome string
	status, registry  int
	cause             load.Cause
}

// replayed are the metrics of results that are counted alike, looked up once.
type replayed struct {
	requests, bytes, failures prometheus.Counter // failures is nil for what succeeded
	latency, service          prometheus.Observer
}

// NewReplay returns the metrics of a replay against registries, by their bases.
func NewReplay(registries []string) *Replay {
	counts := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: replayPrefix + name, Help: help}, labels)
	}
	times := prometheus.ExponentialBuckets(250e-6, 2, 20) // 250 us to 131 s
	m := &Replay{
		registry: prometheus.NewRegistry(),
		bases:    registries,
		alike:    map[replayKey]*replayed{},
		requests: counts("requests_total",
			"Requests that ended, by kind (blob, manifest, ...), operation, status code (\"none\" without an answer), registry, and what its cache said of itself.",
			"kind", "op", "code", "registry", "outcome"),
		bytes:    counts("body_bytes_total", "Bytes of bodies received, or of those sent by a push, by kind and operation.", "kind", "op"),
		failures: counts("failures_total", "Requests that failed, by cause, kind and registry.", "cause", "kind", "registry"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: replayPrefix + "latency_seconds", Buckets: times,
			Help: "Time from when a request was due to its last byte, by kind and operation, of what was not aborted or lost.",
		}, []string{"kind", "op"}),
		service: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: replayPrefix + "service_seconds", Buckets: times,
			Help: "Time from when a request was sent to its last byte, by kind and operation, of what was not aborted or lost.",
		}, []string{"kind", "op"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: replayPrefix + "lag_seconds", Buckets: prometheus.ExponentialBuckets(100e-6, 4, 10), // 100 us to 26 s
			Help: "Time from when a request was due to when it was sent: what the replayer itself is late.",
		}),
		onTime: prometheus.NewCounter(prometheus.CounterOpts{
			Name: replayPrefix + "on_time_total",
			Help: "Requests that succeeded and were sent within " + report.OnTime.String() + " of when they were due.",
		}),
	}
	m.registry.MustRegister(m.requests, m.bytes, m.failures, m.latency, m.service, m.lag, m.onTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe is told of each result. It may be called in parallel.
func (m *Replay) Observe(r load.Result) {
	a := m.replayed(replayKey{r.Kind.String(), string(r.Op), r.Outcome, r.Status, r.Registry, r.Cause})
	a.requests.Inc()
	a.bytes.Add(float64(max(r.Bytes, 0)))
	if a.failures != nil {
		a.failures.Inc()
	}
	if r.Sent.IsZero() {
		return
	}
	m.lag.Observe(r.Late.Seconds())
	if r.Cause == load.CauseNone && r.Late <= report.OnTime {
		m.onTime.Inc()
	}
	if r.Cause != load.CauseAborted && r.Cause != load.CauseLost {
		a.latency.Observe(r.Latency.Seconds())
		a.service.Observe(r.Service.Seconds())
	}
}

// maxAlike bounds what is looked up only once: a registry may make up outcomes.
const maxAlike = 4096

func (m *Replay) replayed(k replayKey) *replayed {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.alike[k]; a != nil {
		return a
	}
	code, base := "none", ""
	if k.status != 0 {
		code = m.codes.bounded(strconv.Itoa(k.status))
	}
	if k.registry >= 0 && k.registry < len(m.bases) {
		base = m.bases[k.registry]
	}
	a := &replayed{
		requests: m.requests.WithLabelValues(k.kind, k.op, code, base, m.outcomes.bounded(strings.ToValidUTF8(k.outcome, "?"))),
		bytes:    m.bytes.WithLabelValues(k.kind, k.op),
		latency:  m.latency.WithLabelValues(k.kind, k.op),
		service:  m.service.WithLabelValues(k.kind, k.op),
	}
	if k.cause != load.CauseNone {
		a.failures = m.failures.WithLabelValues(string(k.cause), k.kind, base)
	}
	if len(m.alike) < maxAlike {
		m.alike[k] = a
	}
	return a
}

// Handler serves /metrics, and /healthz, which answers as long as the process does.
func (m *Replay) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	return mux
}
