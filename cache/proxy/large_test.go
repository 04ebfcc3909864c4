package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest"
)

// counted counts how often a client was given time to take more.
type counted struct {
	*httptest.ResponseRecorder
	extended int
}

func (c *counted) SetWriteDeadline(time.Time) error { c.extended++; return nil }

// TestLargeList: a list of many megabytes has a client's time for each piece of it,
// not for the whole, and its place among the bodies that are sent at a time.
func TestLargeList(t *testing.T) {
	g := newRegistry(t)
	for i := range 200_000 {
		g.repo("app").tags = append(g.repo("app").tags, fmt.Sprintf("release-%d", i))
	}
	held := g.addBlob("app", cachetest.Random(2<<20, 1))
	r := newRig(t, g)
	r.cfg.Streamers, r.cfg.QueueFor = 1, time.Millisecond
	r.start(t)
	w := &counted{ResponseRecorder: httptest.NewRecorder()}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/app/tags/list", nil)
	r.handler.ServeHTTP(w, req)
	if n := w.Body.Len(); w.Code != http.StatusOK || n < 3<<20 || w.extended <= n>>20 {
		t.Errorf("%d with %d bytes, %d times given time", w.Code, n, w.extended)
	}

	g.hold = make(chan struct{})
	resp, err := r.client.Do(r.request(t, http.MethodGet, "/v2/app/blobs/"+held.String(), ""))
	if err != nil {
		t.Fatal(err)
	}
	w = &counted{ResponseRecorder: httptest.NewRecorder()}
	r.handler.ServeHTTP(w, req)
	close(g.hold)
	resp.Body.Close()
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("beside another body: %d", w.Code)
	}
}
