package permit_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestBound: the answers not used for longest make room, allowed or not.
func TestBound(t *testing.T) {
	g := &registry{status: 200}
	cfg := long
	cfg.MaxEntries = 10
	c := permit.New(cfg, g.head)
	for i := range 10 {
		g.set([]int{200, 404}[i%2])
		c.Check(t.Context(), blobOf(fmt.Sprint(i)), "", permit.Whole)
	}
	expect(t, c, blobOf("0"), "", permit.Whole, "200 cached") // used
	g.set(200)
	for i := range 9 {
		c.Check(t.Context(), blobOf("new"), permit.Secret(fmt.Sprint("Bearer ", i)), permit.Whole)
	}
	if s := c.Stats(); s.Entries != 10 || s.Evicted != 9 {
		t.Errorf("%+v", s)
	}
	g.set(0)
	expect(t, c, blobOf("0"), "", permit.Whole, "200 cached")
	for i := range 9 {
		expect(t, c, blobOf(fmt.Sprint(i+1)), "", permit.Whole, "error")
	}
}

// TestLargeAnswersAreNotKept: how much memory an answer takes is neither the
// upstream's nor the caller's choice.
func TestLargeAnswersAreNotKept(t *testing.T) {
	big := strings.Repeat("x", 5000)
	g := &registry{}
	c := permit.New(long, g.head)
	g.set(401, "WWW-Authenticate", `Basic realm="`+big+`"`)
	expect(t, c, blobOf("a"), "", permit.Whole, "401")
	g.set(200)
	expect(t, c, blobOf("a"), "", permit.Whole, "200")
	r := tagOf("a", "v1")
	r.Accept = big
	expect(t, c, r, "", permit.Whole, "200")
	g.set(200, "Content-Type", "a/"+big)
	expect(t, c, tagOf("a", "v2"), "", permit.Whole, "200")
	if s := c.Stats(); s.Entries != 1 {
		t.Errorf("%d are kept, want 1", s.Entries)
	}
}

// TestNotKeptInVain: what no rule will use is not kept.
func TestNotKeptInVain(t *testing.T) {
	g := &registry{status: 200}
	c := permit.New(permit.Config{RangeTTL: -1, NegativeTTL: -1}, g.head)
	expect(t, c, blobOf("a"), "", permit.Whole, "200")
	expect(t, c, tagOf("a", "v1"), "", permit.Whole, "200")
	g.set(404)
	expect(t, c, tagOf("a", "v1"), "", permit.Whole, "404")
	if s := c.Stats(); s.Entries != 0 {
		t.Errorf("%d are kept", s.Entries)
	}
}

// TestNoGarbage: to find what is kept takes no memory, whatever the credential.
func TestNoGarbage(t *testing.T) {
	for _, auth := range []permit.Secret{"", "Basic dXNlcjpwYXNz", permit.Secret("Bearer " + strings.Repeat("x", 3000))} {
		for _, cfg := range []permit.Config{{}, {Policy: permit.Trusted}} {
			c := permit.New(cfg, func(context.Context, permit.Resource, permit.Secret) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			})
			ctx := t.Context()
			check := func() {
				if d, err := c.Check(ctx, blobResource, auth, permit.Range); err != nil || !d.Allowed() {
					t.Fatal(d, err)
				}
			}
			check()
			if n := testing.AllocsPerRun(100, check); n != 0 {
				t.Errorf("%v, credential of %d bytes: %v allocations", cfg.Policy, len(auth), n)
			}
		}
	}
}
