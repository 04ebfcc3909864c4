package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/reprise-containers/reprise/cache/cluster"
)

// clusterMetric is one metric of what is shared with other replicas.
type clusterMetric struct {
	name, help string
	kind       prometheus.ValueType
	label      string // "": none
	values     func(s *cluster.Stats, emit func(v float64, label ...string))
}

// clusterMetrics are of what is shared with other replicas. There are none without a
// cluster, and none of an index or a tier that is not configured: that one is away and
// that there is none are told apart.
func clusterMetrics() []cacheMetric {
	type S = *cluster.Stats
	all := where(func(S) bool { return true },
		places("cluster_segments_total", "Parts of blobs that were read, by one request each, by place: peer, tier, upstream.",
			func(f cluster.From) int64 { return f.Segments }),
		places("cluster_bytes_total", "Bytes of blobs that came, by place: peer, tier, upstream.",
			func(f cluster.From) int64 { return f.Bytes }),
		places("cluster_failures_total", "Parts of blobs that failed, or did not begin, by place.",
			func(f cluster.From) int64 { return f.Failed }),
		clusterGauge("cluster_leases", "Leases under which something is being fetched.", func(s S) int { return s.Leases }),
		clusterCounter("cluster_fenced_total", "Leases and claims that somebody else had in the end.", func(s S) int64 { return s.Fenced }),
		clusterCounter("cluster_alone_total", "Parts of blobs for which the index was not reached.", func(s S) int64 { return s.Alone }),
		clusterCounter("cluster_peer_requests_total", "Requests of other replicas for something that was there.", func(s S) int64 { return s.Asked }),
		clusterCounter("cluster_given_bytes_total", "Bytes given to other replicas.", func(s S) int64 { return s.Given }),
		clusterCounter("cluster_written_total", "Blobs written to the tier.", func(s S) int64 { return s.Written }),
		clusterCounter("cluster_written_bytes_total", "Bytes of them.", func(s S) int64 { return s.WrittenBytes }),
		clusterCounter("cluster_unwritten_total", "Blobs that could not be written to the tier.", func(s S) int64 { return s.Unwritten }),
		clusterGauge("cluster_queue", "Blobs that wait to be told to others and written to the tier.", func(s S) int { return s.Queue }),
		clusterCounter("cluster_dropped_total", "Blobs that found no room there.", func(s S) int64 { return s.Dropped }),
		clusterCounter("cluster_damaged_total", "Objects of the tier that were damaged, and removed.", func(s S) int64 { return s.Damaged }),
		clusterCounter("cluster_swept_total", "Objects of the tier that were removed to keep it in bounds.", func(s S) int64 { return s.Swept }),
	)
	all = append(all, where(func(s S) bool { return s.HasIndex },
		clusterGauge("cluster_index_up", "1 while Redis is reached.", func(s S) int { return truth(s.Index.Up) }),
		operations("cluster_index_operations_total", "Commands and scripts that were sent to Redis, by operation.",
			func(s S) map[string]uint64 { return s.Index.Ops }),
		clusterCounter("cluster_index_errors_total", "Operations that Redis did not answer, or answered with an error.",
			func(s S) uint64 { return s.Index.Errors }),
		clusterCounter("cluster_index_skipped_total", "Operations that were not sent, because Redis was known to be away.",
			func(s S) uint64 { return s.Index.Away }),
	)...)
	return append(all, where(func(s S) bool { return s.HasTier },
		clusterMetric{"cluster_tier_up", "1 while the tier can be read, or written, by access: reading, writing.", prometheus.GaugeValue, "access",
			func(s S, emit func(float64, ...string)) {
				emit(float64(truth(!s.Shared.Reading.Away)), "reading")
				emit(float64(truth(!s.Shared.Writing.Away)), "writing")
			}},
		operations("cluster_tier_operations_total", "What the tier was asked for, by operation: find, read, put.", func(s S) map[string]uint64 {
			return map[string]uint64{"find": s.Shared.Finds, "read": s.Shared.Reads, "put": s.Shared.Puts}
		}),
		operations("cluster_tier_errors_total", "Of these, those that failed or broke.", func(s S) map[string]uint64 {
			return map[string]uint64{"find": s.Shared.FindErrors, "read": s.Shared.ReadErrors, "put": s.Shared.PutErrors}
		}),
		clusterCounter("cluster_tier_skipped_total", "What the tier was not asked for, because it was known to be away.",
			func(s S) uint64 { return s.Shared.Refused }),
	)...)
}

// where has metrics made only of snapshots that have what they are of.
func where(has func(*cluster.Stats) bool, list ...clusterMetric) (out []cacheMetric) {
	for _, m := range list {
		out = append(out, cacheMetric{m.name, m.help, m.kind, m.label, func(s *CacheSnapshot, emit func(float64, ...string)) {
			if s.Cluster != nil && has(s.Cluster) {
				m.values(s.Cluster, emit)
			}
		}})
	}
	return out
}

func clusterCounter[N number](name, help string, value func(s *cluster.Stats) N) clusterMetric {
	return clusterMetric{name, help, prometheus.CounterValue, "",
		func(s *cluster.Stats, emit func(float64, ...string)) { emit(float64(value(s))) }}
}

func clusterGauge[N number](name, help string, value func(s *cluster.Stats) N) clusterMetric {
	m := clusterCounter(name, help, value)
	m.kind = prometheus.GaugeValue
	return m
}

// operations is a counter for each operation.
func operations(name, help string, values func(s *cluster.Stats) map[string]uint64) clusterMetric {
	return clusterMetric{name, help, prometheus.CounterValue, "operation", func(s *cluster.Stats, emit func(float64, ...string)) {
		for op, n := range values(s) {
			emit(float64(n), op)
		}
	}}
}

// places is a counter for each kind of place that blobs come from.
func places(name, help string, value func(f cluster.From) int64) clusterMetric {
	return clusterMetric{name, help, prometheus.CounterValue, "place", func(s *cluster.Stats, emit func(float64, ...string)) {
		emit(float64(value(s.Peers)), "peer")
		emit(float64(value(s.Tier)), "tier")
		emit(float64(value(s.Upstream)), "upstream")
	}}
}
