package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// limiter is a registry that answers as it is told and counts who asks.
type limiter struct {
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	asked  map[string]int // by method and credential
}

func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[r.Method+" "+r.Header.Get("Authorization")]++
	if l.answer != nil {
		l.answer(w, r)
	}
}

func (l *limiter) set(status int, retry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = func(w http.ResponseWriter, _ *http.Request) {
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(status)
	}
}

func (l *limiter) count(who string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[who]
}

func newLimiter(t *testing.T) (*limiter, string) {
	l := &limiter{asked: map[string]int{}}
	return l, serve(t, l.ServeHTTP)
}

func TestRetryAfterHonoured(t *testing.T) {
	for _, status := range []int{429, 503} {
		l, at := newLimiter(t)
		_, elsewhere := newLimiter(t)
		c := client(t, upstream.Config{})
		l.set(status, "100")
		get := func(method, at, auth string) int {
			t.Helper()
			resp, body, err := do(t, c, method, at+"/v2/a/manifests/b", auth)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 200 {
				n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
				if err != nil || n < 1 || n > 100 {
					t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
				}
				if body != "" && !strings.HasPrefix(body, `{"errors":[{"code":"`) {
					t.Errorf("body %s", body)
				}
			}
			return resp.StatusCode
		}
		if s := get("GET", at, "Bearer a"); s != status {
			t.Fatalf("status %d", s)
		}
		l.set(200, "")
		for range 3 {
			if s := get("GET", at, "Bearer a"); s != status || l.count("GET Bearer a") != 1 {
				t.Errorf("%d, and asked %d times", s, l.count("GET Bearer a"))
			}
		}
		// It is nobody else's, no other registry's, and no other kind's.
		for _, who := range []string{"Bearer b", ""} {
			if s := get("GET", at, who); s != 200 {
				t.Errorf("%q: %d", who, s)
			}
		}
		if s := get("GET", elsewhere, "Bearer a"); s != 200 {
			t.Errorf("elsewhere: %d", s)
		}
		if s := get("HEAD", at, "Bearer a"); s != 200 {
			t.Errorf("HEAD: %d", s)
		}
		// A registry that is asked too much by HEAD is asked too much.
		l.set(status, "100")
		get("HEAD", at, "Bearer c")
		if s := get("GET", at, "Bearer c"); s != status || l.count("GET Bearer c") != 0 {
			t.Errorf("GET after HEAD: %d", s)
		}
		if s := c.Stats(); s.Limited != 2 || s.Throttled != 4 || len(s.Hosts) != 1 || s.Hosts[0].BackoffUntil.IsZero() {
			t.Errorf("%+v", s)
		}
	}
}

func TestRetryAfterEnds(t *testing.T) {
	for what, c := range map[string]*upstream.Client{
		"in a second":        client(t, upstream.Config{}),
		"bound by ourselves": client(t, upstream.Config{MaxBackoff: time.Millisecond}),
	} {
		l, at := newLimiter(t)
		l.set(429, map[string]string{"in a second": "1", "bound by ourselves": "100000"}[what])
		do(t, c, "GET", at+"/v2/a/manifests/b", "")
		l.set(200, "")
		eventually(t, what, func() bool {
			resp, _, err := do(t, c, "GET", at+"/v2/a/manifests/b", "")
			return err == nil && resp.StatusCode == 200
		})
	}
}

// TestNoRetryAfter: without a time there is nothing to wait for.
func TestNoRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		status int
		retry  string
	}{{429, ""}, {429, "0"}, {429, "soon"}, {429, "-5"}, {503, ""}, {500, "100"}, {404, "100"}, {200, "100"}} {
		l, at := newLimiter(t)
		c := client(t, upstream.Config{})
		l.set(tc.status, tc.retry)
		for range 3 {
			if resp, _, err := do(t, c, "GET", at+"/v2/", ""); err != nil || resp.StatusCode != tc.status {
				t.Errorf("%v: %v %v", tc, resp, err)
			}
		}
		if n := l.count("GET "); n != 3 {
			t.Errorf("%v: asked %d times of 3", tc, n)
		}
	}
}

func TestBackoffsAreBounded(t *testing.T) {
	l, at := newLimiter(t)
	c := client(t, upstream.Config{})
	l.set(429, "1000")
	for i := range upstream.MaxBackoffs + 100 {
		if _, _, err := do(t, c, "HEAD", at+"/v2/", fmt.Sprint("Bearer ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.Backoffs(); n > upstream.MaxBackoffs {
		t.Errorf("%d are remembered", n)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "5": 5 * time.Second, " 5 ": 5 * time.Second, "-5": 0, "5.5": 0, "5s": 0, "0x5": 0,
		"Fri, 27 Nov 2026 12:01:00 GMT":  time.Minute,
		"Fri, 27 Nov 2026 11:59:00 GMT":  0,
		"Friday, 27-Nov-26 12:01:00 GMT": time.Minute,
		"Fri Nov 27 12:01:00 2026":       time.Minute,
		"Fri, 27 Nov 9999 12:01:00 GMT":  1 << 31 * time.Second,
		"99999999999999999999":           1<<31*time.Second - 1,
	} {
		if got := upstream.RetryAfter(in, now); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestQuota(t *testing.T) {
	l, at := newLimiter(t)
	c := client(t, upstream.Config{})
	for _, tc := range []struct {
		limit, remaining   string
		wantLimit, wantRem int64
		window             time.Duration
	}{
		{"100;w=21600", "76;w=21600", 100, 76, 6 * time.Hour},
		{"100", "75", 100, 75, 0},
		{"100, 10;w=1, 100;w=60", " 74 ; x=1; w=60", 100, 74, time.Minute},
		{"", "73", -1, 73, 0},
		{"many", "x", -1, 73, 0}, // nothing new
		{"-1", "99999999999999999999", -1, 73, 0},
	} {
		l.mu.Lock()
		l.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("RateLimit-Limit", tc.limit)
			w.Header().Set("RateLimit-Remaining", tc.remaining)
		}
		l.mu.Unlock()
		do(t, c, "HEAD", at+"/v2/a/manifests/b", "")
		s := c.Stats().Hosts
		if len(s) != 1 || "http://"+s[0].Host != at || s[0].Limit != tc.wantLimit || s[0].Remaining != tc.wantRem ||
			s[0].Window != tc.window || s[0].SeenAt.IsZero() {
			t.Errorf("%q %q: %+v", tc.limit, tc.remaining, s)
		}
	}
}

// TestLimitedByRedirect: what a store of blobs asks for is between it and us.
func TestLimitedByRedirect(t *testing.T) {
	store, away := newLimiter(t)
	store.set(503, "100")
	registry, home := newLimiter(t)
	registry.answer = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, away, http.StatusTemporaryRedirect) }
	c := client(t, upstream.Config{})
	for _, who := range []string{"Bearer a", "Bearer b"} { // the store knows neither
		resp, err := c.Do(request(t, "GET", home+"/v2/a/blobs/b", who))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 503 || "http://"+resp.Request.URL.Host != away {
			t.Errorf("%s: %v", who, resp)
		}
	}
	if n := store.count("GET "); n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
	if resp, _, err := do(t, c, "HEAD", home+"/v2/a/blobs/b", "Bearer a"); err != nil || resp.StatusCode != 307 {
		t.Errorf("the registry is not asked any more: %v %v", resp, err)
	}
	if s := c.Stats(); s.WorkersBusy != 0 {
		t.Errorf("%d workers busy", s.WorkersBusy)
	}
}
