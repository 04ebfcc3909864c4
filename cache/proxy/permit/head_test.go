package permit_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// TestHead: what is sent is the caller's own question.
func TestHead(t *testing.T) {
	var got *http.Request
	head := permit.Head(func(r *http.Request) (*http.Response, error) {
		got = r
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 1)
	r := tagOf("library/redis", "v1.2-x_y")
	r.Accept = "a/b, c/d"
	if _, err := head(ctx, r, "Bearer a"); err != nil {
		t.Fatal(err)
	}
	if got.Method != "HEAD" || got.URL.String() != "https://registry.example.com/v2/library/redis/manifests/v1.2-x_y" ||
		got.Host != "registry.example.com" || got.Context().Value(key{}) == nil ||
		fmt.Sprint(got.Header) != "map[Accept:[a/b, c/d] Authorization:[Bearer a]]" {
		t.Errorf("%v", got)
	}
	if _, err := head(ctx, blobOf("a"), ""); err != nil || len(got.Header) != 0 {
		t.Errorf("anonymous: %v %v", got.Header, err)
	}
}

// TestHeadTricks: a name that leads to another path is not asked for.
func TestHeadTricks(t *testing.T) {
	head := permit.Head(func(r *http.Request) (*http.Response, error) {
		t.Errorf("asked for %s", r.URL)
		return nil, nil
	})
	for _, repository := range []string{
		"", "/", "a/", "/a", "a//b", "..", "../b", "a/../b", "a/./b", "a%2fb", "a?b", "a#b", "a b", "a\\b", "a\x00", "a\r\nX: y", "ä",
	} {
		if _, err := head(t.Context(), blobOf(repository), ""); err == nil {
			t.Errorf("repository %q", repository)
		}
	}
	for _, reference := range []string{"", ".", "..", "a/b", "a?b", "a%00", strings.Repeat("../", 5)} {
		if _, err := head(t.Context(), tagOf("a", reference), ""); err == nil {
			t.Errorf("reference %q", reference)
		}
	}
	r := blobOf("a")
	r.Kind = "../x"
	if _, err := head(t.Context(), r, ""); err == nil {
		t.Error("kind ../x")
	}
}

// TestTargets: the answer of one upstream is not another's.
func TestTargets(t *testing.T) {
	r := blobOf("a")
	r.Target = route.Target{Scheme: "http", Host: "[::1]:5000"}
	u, err := r.URL()
	if err != nil || u.String() != "http://[::1]:5000/v2/a/blobs/"+sha {
		t.Errorf("%v, %v", u, err)
	}
}

func TestPolicies(t *testing.T) {
	for _, p := range []permit.Policy{permit.FailClosed, permit.StaleIfError, permit.Trusted} {
		if got, err := permit.ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, c := range []permit.Config{{Policy: 7}, {TTL: -1}, {ManifestTTL: -1}, {StaleFor: -1}, {MaxEntries: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	if _, err := permit.ParsePolicy("trust"); err == nil {
		t.Error("unknown policy is accepted")
	}
	if err := (permit.Config{}).Validate(); err != nil {
		t.Error(err)
	}
}
