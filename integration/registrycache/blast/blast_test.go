package blast_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/blast"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestLoad(t *testing.T) {
	const size = 100 << 10
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "102400")
		w.Write(bytes.Repeat([]byte{1}, size)) //nolint:errcheck // the client sees it
	})
	r, err := blast.Load{Address: address, Paths: []string{"/a", "/b"}, Connections: 3, For: 50 * time.Millisecond, Size: size}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests < 3 || r.Bytes != int64(r.Requests)*size || len(r.Latencies) != r.Requests {
		t.Errorf("%d requests, %d bytes, %d latencies", r.Requests, r.Bytes, len(r.Latencies))
	}
	if r.Quantile(0.5) > r.Quantile(0.99) || r.Quantile(1) != r.Latencies[r.Requests-1] {
		t.Error("quantiles are out of order")
	}
}

func TestWrongAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"length": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("four")) }, //nolint:errcheck // as above
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.Write([]byte("four")) //nolint:errcheck // as above
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := blast.Load{Address: serve(t, h), Paths: []string{"/"}, Connections: 1, For: time.Second, Size: 5}.Run(t.Context())
			if err == nil {
				t.Error("it was taken for a right answer")
			}
		})
	}
}
