package proxy_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/upstream"
)

// TestPrimedWorker: the size of a blob is found out by a request whose answer nobody
// can use, because fetches are rounded or the upstream ignores ranges. It does not
// keep the only worker from the request that can be used.
func TestPrimedWorker(t *testing.T) {
	for name, whole := range map[string]bool{"rounded": false, "no ranges": true} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t)
			data := cachetest.Random(300_000, 1)
			g.repo("a/b").redirect = true
			sum := g.addBlob("a/b", data)
			r := newRig(t, g)
			r.fillCfg.Rounding = 4096
			client, err := upstream.New(upstream.Config{
				Workers: 1, QueueFor: 2 * time.Second, AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			r.upstream = client
			r.start(t)
			if whole {
				g.order(&fault{method: http.MethodGet, path: sum.Encoded(), count: 100, whole: true})
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req := r.request(t, http.MethodGet, "/v2/a/b/blobs/"+sum.String(), "").WithContext(ctx)
			req.Header.Set("Range", "bytes=100000-100999")
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, data[100000:101000]) {
				t.Fatalf("%s, %d bytes, %v", resp.Status, len(got), err)
			}
			if n := client.Stats().Busy; n != 0 {
				t.Errorf("%d requests found no worker", n)
			}
		})
	}
}
