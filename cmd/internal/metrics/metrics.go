// Package metrics turns what the libraries count into Prometheus metrics. It
// is the only importer of Prometheus: libraries give snapshots or take a small
// observer. All names begin with "reprise_" and end with their unit.
package metrics

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Metrics is the set of metrics of one daemon.
type Metrics struct {
	registry    *prometheus.Registry
	readBytes   *prometheus.CounterVec
	readSeconds *prometheus.HistogramVec
	readErrors  *prometheus.CounterVec
	callSeconds *prometheus.HistogramVec
	unverified  *prometheus.CounterVec
}

// New returns the metrics every daemon has: reads, calls, process and runtime.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		readBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "reprise_read_bytes_total",
			Help: "Compressed bytes read, by tier (cache: what formats asked for; verified: what passed a chunk table; origin: what registries delivered) and priority.",
		}, []string{"tier", "priority"}),
		readSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "reprise_read_seconds",
			Help:    "Duration of reads by tier and priority.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 12), // 10 us to 42 s
		}, []string{"tier", "priority"}),
		readErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "reprise_read_errors_total",
			Help: "Reads that failed, by tier and priority; cancelled ones are not among them.",
		}, []string{"tier", "priority"}),
		callSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "reprise_snapshotter_call_seconds",
			Help:    "Duration of containerd's calls by method and gRPC code.",
			Buckets: prometheus.ExponentialBuckets(100e-6, 2, 20),
		}, []string{"method", "code"}),
		unverified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "reprise_verify_failures_total",
			Help: "Chunks of layers that were not what their chunk table says, and parts of such tables, by the host that served them.",
		}, []string{"host"}),
	}
	m.registry.MustRegister(m.readBytes, m.readSeconds, m.readErrors, m.callSeconds, m.unverified,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// reads observes the reads of one tier, by priority.
type reads [2]struct {
	bytes, errors prometheus.Counter
	seconds       prometheus.Observer
}

// Reads returns the observer for a tier of the read path.
func (m *Metrics) Reads(tier string) blob.Observer {
	var r reads
	for p, name := range []string{blob.Demand: "demand", blob.Background: "background"} {
		r[p].bytes = m.readBytes.WithLabelValues(tier, name)
		r[p].errors = m.readErrors.WithLabelValues(tier, name)
		r[p].seconds = m.readSeconds.WithLabelValues(tier, name)
	}
	return &r
}

// ObserveRead implements blob.Observer.
func (r *reads) ObserveRead(n int, took time.Duration, err error, p blob.Priority) {
	o := &r[p]
	o.bytes.Add(float64(n))
	o.seconds.Observe(took.Seconds())
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		o.errors.Inc()
	}
}

// VerifyFailed counts a chunk that was not what it should be; host is the
// "scheme://host" that served it, or "unknown".
func (m *Metrics) VerifyFailed(host string) { m.unverified.WithLabelValues(host).Inc() }

// Counter exports a monotonic count that value returns.
func (m *Metrics) Counter(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
}

// Gauge exports what value returns.
func (m *Metrics) Gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// Calls returns an interceptor that times the calls of a gRPC server.
func (m *Metrics) Calls() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := time.Now()
		resp, err := handler(ctx, req)
		m.callSeconds.WithLabelValues(path.Base(info.FullMethod), status.Code(err).String()).
			Observe(time.Since(start).Seconds())
		return resp, err
	}
}

// Handler serves /metrics, and /healthz, which answers 200 if health returns
// nil and 503 with the error if not.
func (m *Metrics) Handler(health func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := health(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}
