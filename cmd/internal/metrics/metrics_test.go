package metrics_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/remote/blob"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestExport(t *testing.T) {
	m := metrics.New()
	origin := m.Reads("origin")
	origin.ObserveRead(4096, time.Millisecond, nil, blob.Demand)
	origin.ObserveRead(100, time.Millisecond, io.EOF, blob.Demand)
	origin.ObserveRead(0, time.Millisecond, context.Canceled, blob.Demand)
	origin.ObserveRead(0, time.Millisecond, errors.New("down"), blob.Background)
	m.VerifyFailed("https://mirror.example")
	m.Gauge("reprise_cache_bytes", "Bytes in the cache.", func() float64 { return 42 })
	_, err := m.Calls()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/containerd.services.snapshots.v1.Snapshots/Prepare"},
		func(context.Context, any) (any, error) { return nil, status.Error(codes.AlreadyExists, "it is there") })
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("the interceptor returned %v, want the handler's error", err)
	}
	_, text := get(t, m.Handler(func(context.Context) error { return nil }), "/metrics")
	for _, want := range []string{
		`reprise_read_bytes_total{priority="demand",tier="origin"} 4196`,
		`reprise_read_errors_total{priority="demand",tier="origin"} 0`,
		`reprise_read_errors_total{priority="background",tier="origin"} 1`,
		`reprise_cache_bytes 42`,
		`reprise_verify_failures_total{host="https://mirror.example"} 1`,
		`reprise_snapshotter_call_seconds_count{code="AlreadyExists",method="Prepare"} 1`,
		"process_resident_memory_bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestHealth(t *testing.T) {
	m := metrics.New()
	if code, body := get(t, m.Handler(func(context.Context) error { return nil }), "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthy: %d %q", code, body)
	}
	sick := m.Handler(func(context.Context) error { return errors.New("the holder is gone") })
	if code, body := get(t, sick, "/healthz"); code != 503 || !strings.Contains(body, "holder") {
		t.Errorf("sick: %d %q", code, body)
	}
}
