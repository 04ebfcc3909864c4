package cachechain_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// storage is a registry that has one blob, which it redirects to, and states no
// size before. Without ranges it answers the whole blob to any request.
func storage(data []byte, ranges bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/storage"):
			http.Redirect(w, r, "/storage", http.StatusTemporaryRedirect)
		case ranges:
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		default:
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data)
		}
	})
}

// TestPrimedWorker: the size of a blob is found out by a request whose answer nobody
// can use, because fetches are rounded or the upstream ignores ranges. It does not
// keep the only worker from the request that can be used.
func TestPrimedWorker(t *testing.T) {
	data := cachetest.Random(300_000, 1)
	for name, ranges := range map[string]bool{"rounded": true, "no ranges": false} {
		t.Run(name, func(t *testing.T) {
			registry := httptest.NewServer(storage(data, ranges))
			defer registry.Close()
			cfg := cacheconfig.Default()
			cfg.Server.DefaultBackend = cacheconfig.Backend{Host: strings.TrimPrefix(registry.URL, "http://"), Scheme: "http"}
			cfg.Server.AllowAddresses = []string{"127.0.0.0/8"}
			cfg.Server.Workers = 1
			cfg.Fill.Rounding = 4096
			c, _, err := open(t, cfg)
			if err != nil {
				t.Fatal(err)
			}
			serving := httptest.NewServer(c.Handler)
			defer serving.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			url := serving.URL + "/v2/a/b/blobs/" + digest.FromBytes(data).String()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", "bytes=100000-100999")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, data[100000:101000]) {
				t.Fatalf("%s, %d bytes, %v: %s", resp.Status, len(got), err, got[:min(200, len(got))])
			}
			if n := c.Upstream.Stats().Busy; n != 0 {
				t.Errorf("%d requests found no worker", n)
			}
		})
	}
}
