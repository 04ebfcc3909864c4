package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// cacheMetrics are the metrics that are made of snapshots, by what they are of.
func cacheMetrics() []cacheMetric {
	type S = *CacheSnapshot
	var all []cacheMetric
	all = append(all, clientMetrics()...)
	all = append(all, upstreamMetrics()...)
	all = append(all, diskMetrics()...)
	all = append(all, clusterMetrics()...)
	return append(all,
		counter("warm_bytes_total", "Bytes fetched ahead because of recorded starts.", func(s S) int64 { return s.Warm.Bytes }),
		each("warm_images_total", "Images with a recorded start, by what came of it.", "outcome", func(s S) map[string]int64 {
			w := s.Warm
			return map[string]int64{
				"warmed": w.Warmed - w.Partial, "partial": w.Partial, "invalid": w.Invalid, "failed": w.Failed, "dropped": w.Dropped,
			}
		}),
		gauge("warm_waiting", "Images with a recorded start that wait for their turn.", func(s S) int { return s.Warm.Waiting }),
		counter("access_log_lost_total", "Requests that the access log did not take.", func(s S) uint64 { return s.LostLog }),
	)
}

// clientMetrics are of clients and their permissions.
func clientMetrics() []cacheMetric {
	type S = *CacheSnapshot
	return []cacheMetric{
		gauge("requests_in_flight", "Requests that are being answered.", func(s S) int64 { return s.Proxy.InFlight }),
		gauge("streamers_busy", "Bodies that are being sent, of those that count for streamers.", func(s S) int { return s.Proxy.Streaming }),
		gauge("streamers", "Bodies that may be sent at a time (server.streamers).", func(s S) int { return s.Proxy.Streamers }),
		gauge("streamers_waiting", "Requests that wait to send a body.", func(s S) int64 { return s.Proxy.StreamersWaiting }),
		counter("streamers_refused_total", "Requests that were told to come again, because too many bodies were being sent.",
			func(s S) uint64 { return s.Proxy.StreamersRefused }),
		counter("bad_content_total", "Times that an upstream or the disk had wrong bytes.", func(s S) uint64 { return s.Proxy.BadContent }),
		gauge("memory_bytes", "Memory that content in memory takes.", func(s S) int64 { return s.Proxy.Memory.Bytes }),
		gauge("memory_max_bytes", "Memory that it may take (server.memory).", func(s S) int64 { return s.Proxy.Memory.MaxBytes }),
		counter("memory_hits_total", "Times that content was in memory.", func(s S) uint64 { return s.Proxy.Memory.Hits }),
		counter("memory_misses_total", "Times that content was not in memory.", func(s S) uint64 { return s.Proxy.Memory.Misses }),
		each("permission_checks_total", "Permission checks by how they were settled: asked upstream, joined to one that was under way, by an earlier answer, by one that another replica had, by the trusted policy.",
			"by", func(s S) map[string]int64 {
				p := s.Permit
				return map[string]int64{
					"upstream": p.Heads, "joined": p.Joined, "kept": p.Hits, "kept-refusal": p.NegativeHits, "shared": p.SharedHits,
					"trusted": p.Trusted,
				}
			}),
		each("permission_answers_total", "Answers of upstreams to permission checks.", "answer", func(s S) map[string]int64 {
			p := s.Permit
			return map[string]int64{
				"allowed": p.Allowed, "unauthorized": p.Unauthorized, "forbidden": p.Forbidden, "not-found": p.NotFound,
				"limited": p.Limited, "failed": p.Failed, "unreached": p.Unreached,
			}
		}),
		counter("permission_stale_total", "Requests allowed by an earlier answer, because the upstream gave none.", func(s S) int64 { return s.Permit.Stale }),
		gauge("permissions", "Permissions and refusals that are kept.", func(s S) int { return s.Permit.Entries }),
		each("permissions_shared_total", "Permissions shared with other replicas, by what came of it: kept, invalid (no replica can have meant them so), error.",
			"outcome", func(s S) map[string]int64 {
				p := s.Permit
				return map[string]int64{"kept": p.SharedKept, "invalid": p.SharedInvalid, "error": p.SharedErrors}
			}),
	}
}

// upstreamMetrics are of what is asked upstream.
func upstreamMetrics() []cacheMetric {
	type S = *CacheSnapshot
	return []cacheMetric{
		each("upstream_requests_total", "Requests to upstreams: permission checks, blobs, manifests and lists.", "request", func(s S) map[string]int64 {
			u := s.Upstream
			return map[string]int64{"check": u.Heads, "blob": u.Blobs, "manifest": u.Requests - u.Heads - u.Blobs}
		}),
		counter("upstream_bytes_total", "Bytes of bodies that came from upstreams.", func(s S) int64 { return s.Upstream.Bytes }),
		each("upstream_errors_total", "Requests without an answer, or with one that was refused.", "reason", func(s S) map[string]int64 {
			u := s.Upstream
			return map[string]int64{
				"timeout": u.Timeouts, "busy": u.Busy, "address": u.Addresses, "realm": u.Realms,
				"other": u.Errors - u.Timeouts - u.Busy - u.Addresses - u.Realms,
			}
		}),
		counter("upstream_redirects_total", "Redirects that were followed.", func(s S) int64 { return s.Upstream.Redirects }),
		counter("upstream_limited_total", "Answers 429, and 503 with Retry-After.", func(s S) int64 { return s.Upstream.Limited }),
		counter("upstream_throttled_total", "Requests that were answered here because the upstream had asked to wait.", func(s S) int64 { return s.Upstream.Throttled }),
		gauge("workers_busy", "Blobs that are being downloaded.", func(s S) int { return s.Upstream.WorkersBusy }),
		gauge("workers", "Blobs that may be downloaded at a time (server.workers).", func(s S) int { return s.Upstream.Workers }),
		gauge("workers_waiting", "Downloads that wait for a worker.", func(s S) int { return s.Upstream.WorkersWait }),
		gauge("upstream_checks_busy", "Other requests to upstreams under way.", func(s S) int { return s.Upstream.ChecksBusy }),
		gauge("upstream_checks_waiting", "Other requests that wait.", func(s S) int { return s.Upstream.ChecksWait }),
		quotas("upstream_quota_limit", "Requests an upstream allows in its period (RateLimit-Limit), as last said to anybody.",
			func(h upstream.HostStats) (float64, bool) { return float64(h.Limit), h.Limit >= 0 }),
		quotas("upstream_quota_remaining", "Requests left of them (RateLimit-Remaining), as last said to anybody.",
			func(h upstream.HostStats) (float64, bool) { return float64(h.Remaining), h.Remaining >= 0 }),
		quotas("upstream_backoff_until_seconds", "Time until which an upstream asked somebody to wait, Unix seconds.",
			func(h upstream.HostStats) (float64, bool) { return seconds(h.BackoffUntil), !h.BackoffUntil.IsZero() }),
		counter("fetches_total", "Requests for blobs that are shared by all who wait for them.", func(s S) int64 { return s.Fill.Fetches }),
		gauge("fetches_in_flight", "Of these, under way.", func(s S) int64 { return s.Fill.Fetching }),
		counter("fetched_bytes_total", "Bytes that came by them.", func(s S) int64 { return s.Fill.Bytes }),
		counter("fetched_ahead_bytes_total", "Of these, bytes that nobody waited for.", func(s S) int64 { return s.Fill.Background }),
		gauge("waiting", "Requests that wait for bytes that another one has fetched.", func(s S) int64 { return s.Fill.Waiting }),
		counter("joined_total", "Times that a request waited for a fetch of another one.", func(s S) int64 { return s.Fill.Joined }),
		counter("fetches_broken_total", "Fetches that ended with an error.", func(s S) int64 { return s.Fill.Broken }),
		counter("fetches_taken_over_total", "Fetches that went on where another broke.", func(s S) int64 { return s.Fill.TakenOver }),
		counter("mismatches_total", "Blobs that were not what their digest says.", func(s S) int64 { return s.Fill.Mismatches }),
		counter("direct_total", "Requests that went past the cache, because the disk did not take their bytes.", func(s S) int64 { return s.Fill.Direct }),
	}
}

// diskMetrics are of what is kept.
func diskMetrics() []cacheMetric {
	type S = *CacheSnapshot
	return []cacheMetric{
		gauge("disk_bytes", "Disk space that is used.", func(s S) int64 { return s.Cache.Bytes }),
		gauge("disk_max_bytes", "Disk space that may be used (gc.disk.maxSize).", func(s S) int64 { return s.MaxBytes }),
		gauge("blobs", "Blobs of which something is kept.", func(s S) int { return s.Cache.Blobs }),
		gauge("links", "Requests of which it is known what they lead to.", func(s S) int { return s.Links }),
		gauge("scanned", "1 when all that was there at the start is known.", func(s S) int { return truth(s.Scanned) }),
		counter("stored_bytes_total", "Bytes written to the disk.", func(s S) int64 { return s.Cache.BytesStored }),
		counter("evicted_bytes_total", "Disk space given back to make room.", func(s S) int64 { return s.Cache.BytesEvicted }),
		counter("evictions_total", "Blobs given up to make room.", func(s S) int64 { return s.Cache.Evictions }),
		each("disk_errors_total", "Errors of the disk.", "operation", func(s S) map[string]int64 {
			return map[string]int64{"read": s.Cache.ReadErrors, "store": s.Cache.StoreErrors}
		}),
		each("collected_total", "What garbage collection gave up, by reason.", "reason", func(s S) map[string]int64 {
			g := s.GC
			return map[string]int64{
				"size": g.Size, "age": g.Age, "unused": g.Unused, "corrupt": g.Corrupt,
				"empty": g.Empty, "undesired": g.Undesired, "orphan": g.Orphans,
			}
		}),
		counter("collections_total", "Garbage collections.", func(s S) int64 { return s.GC.Collections }),
		{"collected_last_seconds", "When the last one ended, Unix seconds.", prometheus.GaugeValue, "",
			func(s S, emit func(float64, ...string)) {
				if !s.GC.Last.IsZero() {
					emit(seconds(s.GC.Last))
				}
			}},
		counter("scrubbed_blobs_total", "Blobs compared with their digest again.", func(s S) int64 { return s.GC.Scrubbed }),
		counter("scrubbed_bytes_total", "Bytes of them.", func(s S) int64 { return s.GC.ScrubBytes }),
		gauge("collecting", "1 while garbage is collected.", func(s S) int { return truth(s.GC.Collecting) }),
		counter("low_space_total", "Collections because of little space.", func(s S) int64 { return s.GC.LowSpace }),
		counter("clock_jumps_total", "Collections that left ages alone, because the clock had been set.", func(s S) int64 { return s.GC.ClockJumps }),
		gauge("scrub_due_bytes", "Bytes of the blobs whose turn to be compared it is.", func(s S) int64 { return s.GC.ScrubDueBytes }),
		gauge("scrub_due_blobs", "Blobs whose turn to be compared it is.", func(s S) int64 { return s.GC.ScrubDue }),
	}
}
