package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/metrics"
)

// The label is what was asked, spelt one way, or says that this is not known.
func TestFailuresAreCountedByHost(t *testing.T) {
	text := logged(t)
	m := metrics.New()
	v := newVerification(t.Context(), m)
	for range 2 {
		v.VerifyFailed(digest.FromString("layer"), 3, 4096, 2000, "https://mirror.example")
		v.VerifyFailed(digest.FromString("layer"), -1, 90_000, 1088, "")
	}
	w := httptest.NewRecorder()
	m.Handler(func(context.Context) error { return nil }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`reprise_verify_failures_total{host="https://mirror.example"} 2`,
		`reprise_verify_failures_total{host="unknown"} 2`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	for _, want := range []string{"mirror.example", "host=unknown", "a chunk of a layer", "a part of a layer's chunk table"} {
		if n := strings.Count(text(), want); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", want, n, text())
		}
	}
}
