package permit_test

import (
	"encoding/base64"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

var long = permit.Config{TTL: time.Hour, RangeTTL: time.Hour, ManifestTTL: time.Hour, NegativeTTL: time.Hour,
	Policy: permit.StaleIfError, StaleFor: time.Hour}

// TestIsolation: an answer is one credential's, for one resource.
func TestIsolation(t *testing.T) {
	other := blobOf("a")
	other.Target.Scheme = "http"
	elsewhere := blobOf("a")
	elsewhere.Target = route.Target{Scheme: "https", Host: "registry.example.com:444"}
	digest := blobOf("a")
	digest.Reference = "sha256:" + sha[8:71] + "0"
	manifest := blobOf("a")
	manifest.Kind = "manifests"
	accept := tagOf("a", "v1")
	accept.Accept = "y"
	type caller struct {
		r    permit.Resource
		auth permit.Secret
	}
	callers := []caller{
		{blobOf("a"), "Bearer a"},
		{blobOf("a"), ""}, {blobOf("a"), "Bearer b"}, {blobOf("a"), "Bearer a "}, {blobOf("a"), "bearer a"}, {blobOf("a"), "Basic a"},
		{blobOf("b"), "Bearer a"}, {blobOf("A"), "Bearer a"}, {blobOf("a/b"), "Bearer a"},
		{other, "Bearer a"}, {elsewhere, "Bearer a"}, {digest, "Bearer a"}, {manifest, "Bearer a"},
		{tagOf("a", "v1"), "Bearer a"}, {tagOf("a", "v2"), "Bearer a"}, {accept, "Bearer a"},
	}
	for i, first := range callers {
		g := &registry{status: 200}
		c := permit.New(long, g.head)
		expect(t, c, first.r, first.auth, permit.Range, "200")
		g.set(0) // from now on only what was kept helps
		for j, second := range callers {
			want := "error"
			if i == j {
				want = "200 cached"
			}
			expect(t, c, second.r, second.auth, permit.Range, want)
		}
		// The other way round: nobody is refused for another.
		g.set(404)
		c = permit.New(long, g.head)
		expect(t, c, first.r, first.auth, permit.Range, "404")
		g.set(200)
		for j, second := range callers {
			want := "200"
			if i == j {
				want = "404 cached"
			}
			expect(t, c, second.r, second.auth, permit.Range, want)
		}
	}
	// A blob is one, whatever a client says it accepts.
	g := &registry{status: 200}
	c := permit.New(long, g.head)
	expect(t, c, blobOf("a"), "", permit.Range, "200")
	r := blobOf("a")
	r.Accept = "text/html"
	expect(t, c, r, "", permit.Range, "200 cached")
}

// TestRevocation: a refusal ends what was allowed, of everything it is about and of
// nobody else. It comes with the HEAD of a whole blob, which is always asked for, or
// with a GET.
func TestRevocation(t *testing.T) {
	cfg := permit.Config{RangeTTL: time.Hour, ManifestTTL: time.Hour, NegativeTTL: -1}
	for _, status := range []int{401, 403, 404} {
		for _, by := range []string{"HEAD", "GET"} {
			g := &registry{status: 200}
			c := permit.New(cfg, g.head)
			for _, auth := range []permit.Secret{"Bearer a", "Bearer b"} {
				for _, r := range []permit.Resource{blobOf("a"), tagOf("a", "v1"), tagOf("a", "v2"), blobOf("b")} {
					expect(t, c, r, auth, permit.Range, "200")
				}
			}
			if by == "GET" {
				c.Denied(t.Context(), blobOf("a"), "Bearer a", status)
			} else {
				g.set(status)
				expect(t, c, blobOf("a"), "Bearer a", permit.Whole, fmt.Sprint(status))
			}
			g.set(0)
			rest, ended := "200 cached", 1
			if status != 404 {
				rest, ended = "error", 3
			}
			expect(t, c, blobOf("a"), "Bearer a", permit.Range, "error")
			expect(t, c, tagOf("a", "v1"), "Bearer a", permit.Whole, rest)
			expect(t, c, tagOf("a", "v2"), "Bearer a", permit.Whole, rest)
			expect(t, c, blobOf("b"), "Bearer a", permit.Range, "200 cached")
			expect(t, c, blobOf("a"), "Bearer b", permit.Range, "200 cached")
			if s := c.Stats(); s.Revoked != int64(ended) {
				t.Errorf("%d by %s: %d revoked, want %d", status, by, s.Revoked, ended)
			}
		}
	}
	// Trouble, or an answer that is none, ends nothing.
	for _, status := range []int{200, 400, 410, 429, 500, 503} {
		g := &registry{status: 200}
		c := permit.New(long, g.head)
		expect(t, c, blobOf("a"), "", permit.Whole, "200")
		c.Denied(t.Context(), blobOf("a"), "", status)
		expect(t, c, blobOf("a"), "", permit.Whole, "200 cached")
	}
}

// TestRefusalEndsStale: what was refused is not allowed when the upstream is gone.
func TestRefusalEndsStale(t *testing.T) {
	for _, status := range []int{401, 403, 404, 410} {
		synctest.Test(t, func(t *testing.T) {
			g := &registry{status: 200}
			c := permit.New(permit.Config{Policy: permit.StaleIfError, RangeTTL: -1, NegativeTTL: -1}, g.head)
			expect(t, c, blobOf("a"), "", permit.Whole, "200")
			g.set(0)
			expect(t, c, blobOf("a"), "", permit.Whole, "200 cached stale")
			g.set(status)
			expect(t, c, blobOf("a"), "", permit.Whole, fmt.Sprint(status))
			g.set(0)
			expect(t, c, blobOf("a"), "", permit.Whole, "error")
		})
	}
}

// TestForget: what is purged is asked for again.
func TestForget(t *testing.T) {
	g := &registry{status: 200}
	c := permit.New(long, g.head)
	for _, r := range []permit.Resource{blobOf("a"), blobOf("b"), tagOf("a", "v1")} {
		expect(t, c, r, "", permit.Whole, "200")
	}
	if n := c.Forget(func(r permit.Resource) bool { return r.Repository == "a" }); n != 2 {
		t.Errorf("%d forgotten of 2", n)
	}
	expect(t, c, blobOf("b"), "", permit.Whole, "200 cached")
	expect(t, c, blobOf("a"), "", permit.Whole, "200")
	if n := c.Forget(nil); n != 2 || c.Stats().Entries != 0 {
		t.Errorf("%d forgotten of 2, %d left", n, c.Stats().Entries)
	}
}

// TestTokenBounds: nothing of a token outlives it.
func TestTokenBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, form := range []func(exp int64) permit.Secret{
			func(exp int64) permit.Secret { return token(fmt.Sprint(exp)) },
			func(exp int64) permit.Secret { return token(fmt.Sprintf("%d.5", exp)) },
			func(exp int64) permit.Secret { return token(fmt.Sprintf("%de0", exp)) },
			func(exp int64) permit.Secret { return "bearer" + token(fmt.Sprint(exp))[len("Bearer"):] },
			func(exp int64) permit.Secret { // as a password
				plain := "user:" + string(token(fmt.Sprint(exp))[len("Bearer "):])
				return permit.Secret("Basic " + base64.StdEncoding.EncodeToString([]byte(plain)))
			},
		} {
			g := &registry{status: 200}
			c := permit.New(long, g.head)
			auth := form(time.Now().Unix() + 30)
			expect(t, c, blobOf("a"), auth, permit.Range, "200")
			time.Sleep(29 * time.Second)
			expect(t, c, blobOf("a"), auth, permit.Range, "200 cached")
			time.Sleep(time.Second)
			expect(t, c, blobOf("a"), auth, permit.Range, "200") // asked again
			expect(t, c, blobOf("a"), auth, permit.Range, "200")
			g.set(0)
			expect(t, c, blobOf("a"), auth, permit.Range, "error") // and not stale
		}
		// One that is over, or was never any good, is not kept at all.
		for _, e := range []string{"0", "-5", "-1e300", fmt.Sprint(time.Now().Unix() - 1)} {
			g := &registry{status: 200}
			c := permit.New(long, g.head)
			for range 2 {
				expect(t, c, blobOf("a"), token(e), permit.Range, "200")
			}
		}
		// What does not say so is kept as configured.
		for _, auth := range []permit.Secret{
			token("null"), token(`"soon"`), token("1e300"), token("99999999999999"), "Bearer a.b.c", "Bearer opaque", "Bearer", "x y z",
			"Basic !!!", "Basic YTpi",
		} {
			g := &registry{status: 200}
			c := permit.New(long, g.head)
			expect(t, c, blobOf("a"), auth, permit.Range, "200")
			time.Sleep(59 * time.Minute)
			expect(t, c, blobOf("a"), auth, permit.Range, "200 cached")
		}
	})
}
