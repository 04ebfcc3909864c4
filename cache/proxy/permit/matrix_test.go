package permit_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestMatrix: policy x what was answered before, and how long ago x what the
// upstream answers now.
func TestMatrix(t *testing.T) {
	const (
		never  = iota
		recent // within every TTL
		older  // within StaleFor only
		old    // beyond
		refusedRecently
		refusedBefore // says nothing any more, neither yes nor no
	)
	states := []string{"never asked", "allowed just now", "allowed a while ago", "allowed long ago", "refused just now", "refused a while ago"}
	cfg := permit.Config{TTL: 20 * time.Second, RangeTTL: 20 * time.Second, ManifestTTL: 20 * time.Second,
		NegativeTTL: 20 * time.Second, StaleFor: 10 * time.Minute}
	upstreams := map[int]string{ // status now: the plain answer
		200: "200", 204: "200", 307: "200", 302: "200", 401: "401", 403: "403", 404: "404", 400: "400", 405: "405",
		410: "410", 429: "429", 500: "500", 502: "502", 503: "503", 504: "504", 304: "502", 300: "502", 0: "error",
	}
	trouble := map[int]bool{429: true, 500: true, 502: true, 503: true, 504: true, 304: true, 300: true, 0: true}
	want := func(p permit.Policy, state, status int) string {
		switch {
		case p == permit.Trusted:
			return "200 trusted"
		case state == recent:
			return "200 cached"
		case state == refusedRecently:
			return "403 cached"
		case p == permit.StaleIfError && state == older && trouble[status]:
			return "200 cached stale"
		}
		return upstreams[status]
	}
	for _, p := range []permit.Policy{permit.FailClosed, permit.StaleIfError, permit.Trusted} {
		for state := range states {
			for status := range upstreams {
				for _, r := range []permit.Resource{blobOf("a"), tagOf("a", "latest")} {
					synctest.Test(t, func(t *testing.T) {
						g, cfg := &registry{}, cfg
						cfg.Policy = p
						c := permit.New(cfg, g.head)
						location := []string{"Location", "https://cdn.example/x?sig=SECRET"}
						switch state {
						case never:
						case refusedRecently, refusedBefore:
							g.set(403)
							c.Check(t.Context(), r, "Bearer a", permit.Whole)
							if state == refusedBefore {
								time.Sleep(seconds(20))
							}
						default:
							g.set(200)
							c.Check(t.Context(), r, "Bearer a", permit.Whole)
							time.Sleep(map[int]time.Duration{recent: seconds(19), older: seconds(599), old: seconds(601)}[state])
						}
						g.set(status, location...)
						d, err := c.Check(t.Context(), r, "Bearer a", permit.Whole)
						if got, want := answer(d, err), want(p, state, status); got != want {
							t.Errorf("%s, %s, upstream %d: %s, want %s", p, states[state], status, got, want)
						}
						if d.Allowed() != (d.Status == 200) || d.Header.Get("Location") != "" {
							t.Errorf("decision %+v", d)
						}
						if n := g.asked(); p == permit.Trusted && n != 0 {
							t.Errorf("trusted, and asked %d times", n)
						}
					})
				}
			}
		}
	}
}

// TestDefaultsAsk: as configured by nobody, whole blobs and manifests are asked for
// each time, ranges once a minute.
func TestDefaultsAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &registry{status: 200}
		c := permit.New(permit.Config{}, g.head)
		for i := range 3 {
			expect(t, c, blobOf("a"), "", permit.Whole, "200")
			expect(t, c, tagOf("a", "latest"), "", permit.Whole, "200")
			if n := g.asked(); n != 2*(i+1) {
				t.Errorf("asked %d times", n)
			}
		}
		// The HEAD for the whole is as good as one for a part.
		for range 1000 {
			expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
		}
		time.Sleep(seconds(59))
		expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
		time.Sleep(seconds(1))
		expect(t, c, blobOf("a"), "", permit.Range, "200")
		if n := g.asked(); n != 7 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestNegativeTTL: a refusal counts for the one it was said to, for seconds.
func TestNegativeTTL(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		synctest.Test(t, func(t *testing.T) {
			g := &registry{}
			g.set(status, "WWW-Authenticate", "Basic realm=x", "X-Other", "y")
			c := permit.New(permit.Config{}, g.head)
			for range 2 {
				want := fmt.Sprint(status)
				if g.asked() > 0 {
					want += " cached"
				}
				d := expect(t, c, blobOf("a"), "", permit.Whole, want)
				if fmt.Sprint(d.Header) != "map[Www-Authenticate:[Basic realm=x]]" {
					t.Errorf("header %v", d.Header)
				}
			}
			g.set(200)
			expect(t, c, blobOf("a"), "Bearer a", permit.Whole, "200") // another caller
			expect(t, c, blobOf("b"), "", permit.Whole, "200")         // another repository
			time.Sleep(seconds(5))
			expect(t, c, blobOf("a"), "", permit.Whole, "200")
		})
		synctest.Test(t, func(t *testing.T) {
			g := &registry{status: status}
			c := permit.New(permit.Config{NegativeTTL: -1}, g.head)
			for range 3 {
				expect(t, c, blobOf("a"), "", permit.Whole, fmt.Sprint(status))
			}
		})
	}
	// What is no refusal of the upstream's does not count longer than it lasts.
	for _, status := range []int{400, 405, 410, 429, 500, 503, 0} {
		g := &registry{status: status}
		c := permit.New(permit.Config{NegativeTTL: time.Hour}, g.head)
		c.Check(t.Context(), blobOf("a"), "", permit.Whole)
		g.set(200)
		expect(t, c, blobOf("a"), "", permit.Whole, "200")
	}
}

// TestPassedOn: a refusal comes with what the caller needs and nothing else.
func TestPassedOn(t *testing.T) {
	g := &registry{}
	g.set(429, "Retry-After", "7", "RateLimit-Remaining", "0;w=60", "Set-Cookie", "SECRET", "Location", "https://x/?SECRET",
		"Docker-Content-Digest", sha)
	d := expect(t, permit.New(permit.Config{}, g.head), blobOf("a"), "", permit.Whole, "429")
	if fmt.Sprint(d.Header) != "map[Ratelimit-Remaining:[0;w=60] Retry-After:[7]]" {
		t.Errorf("header %v", d.Header)
	}
}

// TestDescriptor: what the upstream says of a resource, and what it does not.
func TestDescriptor(t *testing.T) {
	other := "sha256:" + sha[8:71] + "0"
	for _, tc := range []struct {
		r      permit.Resource
		status int
		header []string
		want   string
	}{
		{blobOf("a"), 200, nil, sha + " 1234 "},
		{blobOf("a"), 200, []string{"Docker-Content-Digest", other}, sha + " 1234 "}, // what was asked for
		{blobOf("a"), 200, []string{"Content-Type", "Application/Octet-Stream; x=y"}, sha + " 1234 application/octet-stream"},
		{blobOf("a"), 206, nil, sha + " -1 "},
		{blobOf("a"), 307, []string{"Location", "https://x/", "Content-Type", "text/html"}, sha + " -1 "},
		{tagOf("a", "v1"), 200, []string{"Docker-Content-Digest", other, "Content-Type", "a/b"}, other + " 1234 a/b"},
		{tagOf("a", "v1"), 200, []string{"Docker-Content-Digest", "sha256:short"}, " 1234 "},
		{tagOf("a", "v1"), 200, []string{"Docker-Content-Digest", "../../etc/passwd"}, " 1234 "},
		{tagOf("a", "v1"), 307, []string{"Location", "https://x/"}, " -1 "},
		{tagOf("a", sha), 200, []string{"Content-Type", "nonsense;;"}, sha + " 1234 "},
	} {
		g := &registry{}
		g.set(tc.status, tc.header...)
		d := expect(t, permit.New(permit.Config{}, g.head), tc.r, "", permit.Whole, "200")
		if got := fmt.Sprintf("%s %d %s", d.Descriptor.Digest, d.Descriptor.Size, d.Descriptor.MediaType); got != tc.want {
			t.Errorf("%v: %q, want %q", tc, got, tc.want)
		}
	}
	g := &registry{}
	g.set(307) // that leads nowhere is no redirect
	d := expect(t, permit.New(permit.Config{}, g.head), blobOf("a"), "", permit.Whole, "502")
	if d.Status != http.StatusBadGateway {
		t.Error(d)
	}
	for _, p := range []permit.Resource{blobOf("a"), tagOf("a", "latest")} {
		d := expect(t, permit.New(permit.Config{Policy: permit.Trusted}, nil), p, "", permit.Whole, "200 trusted")
		if d.Descriptor.Size != -1 || (d.Descriptor.Digest != "") != (p.Kind == "blobs") {
			t.Errorf("%+v", d.Descriptor)
		}
	}
}
