package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/remote/upstream"
)

func page(t *testing.T, m *metrics.RegistryCache, path string, ready bool) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(func() bool { return ready }).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestRegistryCacheRequests(t *testing.T) {
	m := metrics.NewRegistryCache()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				m.Observe(proxy.Record{Kind: proxy.KindBlob, Outcome: proxy.OutcomeHit, Status: 200, Bytes: 10, Duration: time.Millisecond})
				m.Observe(proxy.Record{Kind: proxy.KindBlob, Outcome: proxy.OutcomeHit, Status: 206, Bytes: 1})
				m.Observe(proxy.Record{Kind: proxy.KindManifest, Outcome: proxy.OutcomeStale, Status: 200, TagAge: time.Minute, Aborted: true})
			}
		})
	}
	wg.Wait()
	_, text := page(t, m, "/metrics", true)
	for _, want := range []string{
		`requests_total{code="200",kind="blobs",outcome="hit"} 800`, `requests_total{code="206",kind="blobs",outcome="hit"} 800`,
		`request_seconds_count{kind="blobs",outcome="hit"} 1600`, `sent_bytes_total{kind="blobs",outcome="hit"} 8800`,
		`aborted_total{kind="manifests"} 800`, `tag_age_seconds_bucket{le="64"} 800`, `tag_age_seconds_bucket{le="16"} 0`,
	} {
		if !strings.Contains(text, "reprise_registry_cache_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// A client that makes up hosts, or a registry that redirects to many, does not make
// metrics without end.
func TestRegistryCacheHostsAreBounded(t *testing.T) {
	m := metrics.NewRegistryCache()
	for i := range 1000 {
		m.ObserveUpstream(upstream.Observation{Host: fmt.Sprint("h", i), Method: http.MethodHead, Status: 200})
		m.ObserveUpstream(upstream.Observation{Host: fmt.Sprint("h", i), Method: http.MethodGet})
	}
	_, text := page(t, m, "/metrics", true)
	if n := strings.Count(text, "reprise_registry_cache_upstream_answers_total{"); n != 130 {
		t.Errorf("%d answers are told apart, want 2 of 64 hosts and of the others", n)
	}
	if want := `upstream_answers_total{code="error",host="other"} 936`; !strings.Contains(text, want) {
		t.Errorf("no %s", want)
	}
}

func TestRegistryCacheSnapshots(t *testing.T) {
	m := metrics.NewRegistryCache()
	looks := 0
	m.Export(func() metrics.CacheSnapshot {
		looks++
		var s metrics.CacheSnapshot
		s.Upstream.Requests, s.Upstream.Heads, s.Upstream.Blobs = 10, 5, 2
		s.Upstream.Hosts = []upstream.HostStats{{Host: "a", Limit: 100, Remaining: 42}, {Host: "b", Limit: -1, Remaining: -1}}
		s.GC.Corrupt, s.MaxBytes, s.Scanned = 3, 1000, true
		return s
	})
	_, text := page(t, m, "/metrics", true)
	for _, want := range []string{
		`upstream_requests_total{request="manifest"} 3`, `upstream_quota_remaining{host="a"} 42`, `collected_total{reason="corrupt"} 3`,
		`disk_max_bytes 1000`, `scanned 1`,
	} {
		if !strings.Contains(text, "reprise_registry_cache_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, `quota_remaining{host="b"}`) || looks != 1 {
		t.Errorf("looked %d times for\n%s", looks, text)
	}
}

func TestRegistryCacheHealth(t *testing.T) {
	m := metrics.NewRegistryCache()
	for _, c := range []struct {
		path  string
		ready bool
		want  int
	}{{"/healthz", false, 200}, {"/readyz", true, 200}, {"/readyz", false, 503}, {"/debug/pprof/", true, 404}} {
		if got, _ := page(t, m, c.path, c.ready); got != c.want {
			t.Errorf("%s while ready is %v: %d, want %d", c.path, c.ready, got, c.want)
		}
	}
}

func BenchmarkRegistryCacheObserve(b *testing.B) {
	m := metrics.NewRegistryCache()
	r := proxy.Record{Kind: proxy.KindBlob, Outcome: proxy.OutcomeHit, Status: 200, Bytes: 4096, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r)
	}
}

// Each figure of a replica's part in a cluster is a metric, and what a cluster has not
// is none.
func TestRegistryCacheCluster(t *testing.T) {
	said := func(s *cluster.Stats) string {
		m := metrics.NewRegistryCache()
		m.Export(func() metrics.CacheSnapshot { return metrics.CacheSnapshot{Cluster: s} })
		_, text := page(t, m, "/metrics", true)
		return text
	}
	s := &cluster.Stats{
		Peers: cluster.From{Segments: 1, Bytes: 2, Failed: 3}, Tier: cluster.From{Segments: 4, Bytes: 5, Failed: 6},
		Upstream: cluster.From{Segments: 7, Bytes: 8, Failed: 9}, Leases: 10, Fenced: 11, Alone: 12, Asked: 13, Given: 14,
		Written: 15, WrittenBytes: 16, Unwritten: 17, Queue: 18, Dropped: 19, Damaged: 20, Swept: 21,
		HasIndex: true, Index: sharedindex.Stats{Up: true, Ops: map[string]uint64{"locate": 22}, Errors: 23, Away: 24},
		HasTier: true, Shared: tier.Stats{Finds: 25, Reads: 26, Puts: 27, FindErrors: 28, ReadErrors: 29, PutErrors: 30, Refused: 31,
			Writing: tier.State{Away: true}},
	}
	text := said(s)
	for _, want := range []string{
		`segments_total{place="peer"} 1`, `bytes_total{place="peer"} 2`, `failures_total{place="peer"} 3`,
		`segments_total{place="tier"} 4`, `bytes_total{place="tier"} 5`, `failures_total{place="tier"} 6`,
		`segments_total{place="upstream"} 7`, `bytes_total{place="upstream"} 8`, `failures_total{place="upstream"} 9`,
		`leases 10`, `fenced_total 11`, `alone_total 12`, `peer_requests_total 13`, `given_bytes_total 14`, `written_total 15`,
		`written_bytes_total 16`, `unwritten_total 17`, `queue 18`, `dropped_total 19`, `damaged_total 20`, `swept_total 21`,
		`index_up 1`, `index_operations_total{operation="locate"} 22`, `index_errors_total 23`, `index_skipped_total 24`,
		`tier_operations_total{operation="find"} 25`, `tier_operations_total{operation="read"} 26`, `tier_operations_total{operation="put"} 27`,
		`tier_errors_total{operation="find"} 28`, `tier_errors_total{operation="read"} 29`, `tier_errors_total{operation="put"} 30`,
		`tier_skipped_total 31`, `tier_up{access="reading"} 1`, `tier_up{access="writing"} 0`,
	} {
		if !strings.Contains(text, "reprise_registry_cache_cluster_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	s.HasIndex, s.HasTier = false, false
	if text = said(s); strings.Contains(text, "cluster_index") || strings.Contains(text, "cluster_tier") || !strings.Contains(text, "cluster_leases 10") {
		t.Errorf("without an index and a tier there is\n%s", text)
	}
	if text = said(nil); strings.Contains(text, "cluster") {
		t.Errorf("without a cluster there is\n%s", text)
	}
}
