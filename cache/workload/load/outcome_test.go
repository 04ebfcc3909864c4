package load_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// TestOutcome has what caches are known to send.
func TestOutcome(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"X-Other", "hit", ""},
		{"Cache-Status", "ExampleCache; hit", "hit"},
		{"Cache-Status", `"a"; fwd=uri-miss; stored`, "miss"},
		{"Cache-Status", "a; fwd=miss", "miss"},
		{"Cache-Status", "a; fwd=stale; fwd-status=304", "revalidated"},
		{"Cache-Status", "origin; fwd=miss, edge; hit; ttl=-5", "hit"},
		{"Cache-Status", "a; fwd=stale; fwd-status=200", "expired"},
		{"Cache-Status", "a; fwd=method", "bypass"},
		{"Cache-Status", "a; fwd=partial; stored", "partial"},
		{"Cache-Status", "a; hit=?0; fwd=miss", "miss"},
		{"Cache-Status", "edge; detail=x", ""},
		{"X-Cache", "HIT", "hit"},
		{"X-Cache", "Miss from cloudfront", "miss"},
		{"X-Cache", "RefreshHit from cloudfront", "hit"},
		{"X-Cache", "MISS, HIT", "hit"},
		{"X-Cache", "TCP_MEM_HIT from a23-1-2-3.deploy.akamaitechnologies.com (AkamaiGHost/1)", "hit"},
		{"X-Cache-Status", "EXPIRED", "expired"},
		{"Cf-Cache-Status", "DYNAMIC", "dynamic"},
		{"Age", "17", "hit"},
		{"Age", "0", ""},
	} {
		if got := load.Outcome(http.Header{c.name: {c.value}}); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

func FuzzOutcome(f *testing.F) {
	f.Add("Cache-Status", "a; fwd=stale, b; hit")
	f.Add("X-Cache", "TCP_HIT from x")
	f.Fuzz(func(t *testing.T, name, value string) {
		got := load.Outcome(http.Header{name: {value}})
		if strings.ContainsAny(got, " ,") && !strings.HasPrefix(name, "Cache-Status") {
			t.Errorf("%q of %q: %q is more than a word", name, value, got)
		}
	})
}
