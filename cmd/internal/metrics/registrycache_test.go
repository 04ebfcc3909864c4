package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

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
