package metrics_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
)

func replayPage(t *testing.T, m *metrics.Replay, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestReplay(t *testing.T) {
	m := metrics.NewReplay([]string{"http://a", "http://b"})
	at := time.Now()
	hit := load.Result{
		Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: "hit", Bytes: 10, Intended: at, Sent: at.Add(time.Millisecond), Late: time.Millisecond,
		Service: 2 * time.Millisecond, Latency: 3 * time.Millisecond,
	}
	late, refused, lost := hit, hit, hit
	late.Registry, late.Sent, late.Late = 1, at.Add(time.Second), time.Second
	refused.Kind, refused.Status, refused.Cause, refused.Outcome = trace.Manifest, 404, load.CauseStatus, ""
	lost.Sent, lost.Status, lost.Cause, lost.Outcome, lost.Bytes = time.Time{}, 0, load.CauseLost, "", 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				for _, r := range []load.Result{hit, late, refused, lost} {
					m.Observe(r)
				}
			}
		})
	}
	wg.Wait()
	code, text := replayPage(t, m, "/metrics")
	if code != 200 {
		t.Errorf("status %d", code)
	}
	for _, want := range []string{
		`requests_total{code="200",kind="blob",op="get",outcome="hit",registry="http://a"} 100`,
		`requests_total{code="200",kind="blob",op="get",outcome="hit",registry="http://b"} 100`,
		`requests_total{code="404",kind="manifest",op="get",outcome="",registry="http://a"} 100`,
		`requests_total{code="none",kind="blob",op="get",outcome="",registry="http://a"} 100`,
		`body_bytes_total{kind="blob",op="get"} 2000`,
		`failures_total{cause="status",kind="manifest",registry="http://a"} 100`,
		`failures_total{cause="lost",kind="blob",registry="http://a"} 100`,
		`latency_seconds_count{kind="blob",op="get"} 200`,
		`latency_seconds_bucket{kind="blob",op="get",le="0.002"} 0`,
		`latency_seconds_bucket{kind="blob",op="get",le="0.004"} 200`,
		`service_seconds_bucket{kind="blob",op="get",le="0.002"} 200`,
		`lag_seconds_count 300`, `on_time_total 100`,
	} {
		if !strings.Contains(text, "reprise_replay_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/debug/pprof/": 404} {
		if got, _ := replayPage(t, m, path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

// A registry that makes up outcomes and status codes does not make metrics without end,
// nor such that cannot be exported.
func TestReplayIsBounded(t *testing.T) {
	m := metrics.NewReplay(nil)
	for i := range 10_000 {
		m.Observe(load.Result{Kind: trace.Blob, Op: load.Get, Status: i, Outcome: fmt.Sprint("o\xff", i), Bytes: -1, Registry: i})
	}
	code, text := replayPage(t, m, "/metrics")
	if n := strings.Count(text, "reprise_replay_requests_total{"); code != 200 || n > 66*66 {
		t.Errorf("status %d, %d kinds of requests", code, n)
	}
	if !utf8.ValidString(text) {
		t.Error("not UTF-8")
	}
}

func BenchmarkReplayObserve(b *testing.B) {
	m := metrics.NewReplay([]string{"http://a"})
	at := time.Now()
	r := load.Result{Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: "hit", Bytes: 4096, Intended: at, Sent: at, Service: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r)
	}
}
