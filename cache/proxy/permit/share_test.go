package permit_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// minute shares all kinds for as long.
var minute = permit.Config{TTL: time.Minute, RangeTTL: time.Minute, ManifestTTL: time.Minute, NegativeTTL: -1}

// TestSharedIsolation: what one replica was allowed counts on another for the same
// credential and resource, and for nothing else.
func TestSharedIsolation(t *testing.T) {
	other, elsewhere, digest, manifest, accept := blobOf("a"), blobOf("a"), blobOf("a"), blobOf("a"), tagOf("a", "v1")
	other.Target.Scheme = "http"
	elsewhere.Target = route.Target{Scheme: "https", Host: "registry.example.com:444"}
	digest.Reference = "sha256:" + sha[8:71] + "0"
	manifest.Kind = "manifests"
	accept.Accept = "y"
	type caller struct {
		r    permit.Resource
		auth permit.Secret
	}
	callers := []caller{
		{blobOf("a"), "Bearer a"}, {blobOf("a"), ""}, {blobOf("a"), "Bearer b"}, {blobOf("a"), "Bearer a "},
		{blobOf("a"), "bearer a"}, {blobOf("b"), "Bearer a"}, {blobOf("A"), "Bearer a"}, {blobOf("a/b"), "Bearer a"},
		{other, "Bearer a"}, {elsewhere, "Bearer a"}, {digest, "Bearer a"}, {manifest, "Bearer a"},
		{tagOf("a", "v1"), "Bearer a"}, {tagOf("a", "v2"), "Bearer a"}, {accept, "Bearer a"},
	}
	for i, first := range callers {
		p, g := newPlace(), &registry{status: 200}
		expect(t, replica(t, long, g, p), first.r, first.auth, permit.Range, "200")
		g.set(0)
		c := replica(t, long, g, p)
		for j, second := range callers {
			want := "error"
			if i == j {
				want = "200 cached"
			}
			expect(t, c, second.r, second.auth, permit.Range, want)
		}
		if s := c.Stats(); s.SharedHits != 1 || s.Heads != int64(len(callers)-1) || s.Checks != int64(len(callers)) || s.SharedInvalid != 0 {
			t.Errorf("%+v", s)
		}
		// What is refused is not shared.
		p = newPlace()
		g.set(403)
		expect(t, replica(t, long, g, p), first.r, first.auth, permit.Range, "403")
		if len(p.kept) != 0 {
			t.Error("a refusal is shared")
		}
	}
}

// TestSharedNames: no two questions have the same name, and none under another secret.
func TestSharedNames(t *testing.T) {
	c, other := permit.New(long, nil), permit.New(long, nil)
	for c, secret := range map[*permit.Checker][]byte{c: secret, other: bytes.Repeat([]byte("x"), 32)} {
		if err := c.Share(newPlace(), secret); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[[32]byte]string)
	for _, fields := range [][]string{{}, {""}, {"", ""}, {"a", "bc"}, {"ab", "c"}, {"abc"}, {"abc", ""}, {"", "abc"}, {"a\x00b", "c"}} {
		for _, c := range []*permit.Checker{c, other} {
			h, what := permit.HashOf(c, fields...), fmt.Sprintf("%p%q", c, fields)
			if seen[h] != "" {
				t.Errorf("%s and %s are one", seen[h], what)
			}
			seen[h] = what
		}
	}
	a, b := permit.NameOf(c, blobOf("a"), "x"), permit.NameOf(c, tagOf("a", "v1"), "x")
	if a.Scope != b.Scope || a.Item == b.Item {
		t.Error("scope is not that of the credential and repository")
	}
	if c.Share(newPlace(), make([]byte, 31)) == nil {
		t.Error("a short secret is accepted")
	}
}

// TestSharedSaysNothing: neither names nor values have credentials or names in them.
func TestSharedSaysNothing(t *testing.T) {
	p, g := newPlace(), &registry{status: 200}
	c := replica(t, long, g, p)
	for _, r := range []permit.Resource{blobOf("private/repo"), tagOf("private/repo", "mytag")} {
		expect(t, c, r, "Bearer HIDDEN", permit.Range, "200")
	}
	if len(p.kept) != 2 {
		t.Fatalf("%d are shared", len(p.kept))
	}
	for n, k := range p.kept {
		all := string(n.Scope[:]) + string(n.Item[:]) + string(k.value)
		for _, s := range []string{"HIDDEN", "Bearer", "private", "repo", "mytag", "registry.example", "https"} {
			if strings.Contains(all, s) {
				t.Errorf("%q is in %q", s, all)
			}
		}
	}
	if out := fmt.Sprintf("%#v %+v", c, c); strings.Contains(out, "HIDDEN") || strings.Contains(out, "cluster ") {
		t.Error(out)
	}
}

// TestSharedCalls: what calls a check makes.
func TestSharedCalls(t *testing.T) {
	type step struct {
		r      permit.Resource
		class  permit.Class
		status int
		want   string // answer: calls
	}
	ranges := permit.Config{NegativeTTL: -1}
	for name, tc := range map[string]struct {
		cfg   permit.Config
		steps []step
	}{
		"kept": {minute, []step{
			{blobOf("a"), permit.Range, 200, "200: granted grant"},
			{blobOf("a"), permit.Range, 200, "200 cached: "},
			{blobOf("a"), permit.Whole, 200, "200 cached: "},
			{tagOf("a", "v1"), permit.Whole, 200, "200: granted grant"},
		}},
		"asked each time": {ranges, []step{
			{blobOf("a"), permit.Whole, 200, "200: "},
			{tagOf("a", "v1"), permit.Whole, 200, "200: "},
			{tagOf("a", "v1"), permit.Whole, 404, "404: "}, // none is shared
			{tagOf("a", "v1"), permit.Whole, 401, "401: revoke"},
			{blobOf("a"), permit.Range, 404, "404: granted revoke"},
			{blobOf("a"), permit.Range, 410, "410: granted revoke"},
			{blobOf("a"), permit.Whole, 404, "404: revoke"},
			{blobOf("a"), permit.Range, 503, "503: granted"},
			{blobOf("a"), permit.Range, 0, "error: granted"},
		}},
		"nothing kept": {permit.Config{RangeTTL: -1, NegativeTTL: -1}, []step{
			{blobOf("a"), permit.Range, 200, "200: "}, {blobOf("a"), permit.Range, 401, "401: "},
		}},
		"too short": {permit.Config{RangeTTL: time.Second, NegativeTTL: -1}, []step{
			{blobOf("a"), permit.Range, 200, "200: granted"},
		}},
		"trusted": {permit.Config{Policy: permit.Trusted, TTL: time.Minute}, []step{
			{blobOf("a"), permit.Range, 200, "200 trusted: "},
		}},
	} {
		p, g := newPlace(), &registry{}
		c := replica(t, tc.cfg, g, p)
		for i, s := range tc.steps {
			g.set(s.status)
			d, err := c.Check(t.Context(), s.r, "Bearer a", s.class)
			if got := answer(d, err) + ": " + p.made(); got != s.want {
				t.Errorf("%s, step %d: %q, want %q", name, i, got, s.want)
			}
		}
	}
}

// TestSharedAge: an answer is as old on every replica as it is where it came from.
func TestSharedAge(t *testing.T) {
	for _, headTakes := range []int{0, 10, 57, 59, 70} {
		for _, later := range []int{0, 1, 30, 58} {
			synctest.Test(t, func(t *testing.T) {
				p, g := newPlace(), &registry{gate: make(chan struct{}), status: 200}
				began := time.Now()
				asked := start(t.Context(), replica(t, minute, g, p), blobOf("a"), "")
				time.Sleep(seconds(headTakes))
				close(g.gate)
				if o := <-asked; answer(o.d, o.err) != "200" {
					t.Fatal(o)
				}
				g.set(0)
				time.Sleep(seconds(later))
				c := replica(t, minute, g, p)
				want := "error"
				if headTakes+later < 59 {
					want = "200 cached"
				}
				expect(t, c, blobOf("a"), "", permit.Range, want)
				if want == "error" {
					return
				}
				// From here on it is kept: up to the same time, or a second less.
				time.Sleep(time.Until(began.Add(59*time.Second - time.Millisecond)))
				expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
				time.Sleep(time.Second + time.Millisecond)
				expect(t, c, blobOf("a"), "", permit.Range, "error")
			})
		}
	}
}

// TestSharedTTLs: each replica and class has its own idea of what is too old.
func TestSharedTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		expect(t, replica(t, permit.Config{TTL: time.Second * 20, RangeTTL: time.Minute}, g, p), blobOf("a"), "", permit.Whole, "200")
		g.set(0)
		time.Sleep(seconds(30))
		c := replica(t, permit.Config{TTL: time.Second * 20, RangeTTL: time.Minute}, g, p)
		expect(t, c, blobOf("a"), "", permit.Whole, "error")
		expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
		expect(t, c, blobOf("a"), "", permit.Whole, "error")
		expect(t, replica(t, permit.Config{RangeTTL: seconds(25)}, g, p), blobOf("a"), "", permit.Range, "error")
	})
}

// TestSharedToken: nothing is shared for longer than the credential lasts.
func TestSharedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		auth := token(fmt.Sprint(time.Now().Unix() + 30))
		expect(t, replica(t, minute, g, p), blobOf("a"), auth, permit.Range, "200")
		for n := range p.kept {
			if left := time.Until(p.kept[n].end); left > seconds(30) {
				t.Errorf("is kept for %v", left)
			}
		}
		g.set(0)
		time.Sleep(seconds(20))
		c := replica(t, minute, g, p)
		expect(t, c, blobOf("a"), auth, permit.Range, "200 cached")
		time.Sleep(seconds(10))
		expect(t, c, blobOf("a"), auth, permit.Range, "error")
		expect(t, replica(t, minute, g, p), blobOf("a"), auth, permit.Range, "error")
		g.set(200)
		p = newPlace()
		expect(t, replica(t, minute, g, p), blobOf("a"), auth, permit.Range, "200") // it is over
		if len(p.kept) != 0 {
			t.Error("is shared after its end")
		}
	})
}

// TestSharedDescriptor: what another replica was told of a resource is all there.
func TestSharedDescriptor(t *testing.T) {
	for _, header := range [][]string{
		{"Docker-Content-Digest", sha, "Content-Type", "application/vnd.oci.image.manifest.v1+json"},
		{"Docker-Content-Digest", sha}, {"Content-Type", "a/b; c=d"}, {"Location", "https://x/"}, nil,
	} {
		p, g := newPlace(), &registry{}
		g.set(200, header...)
		if len(header) > 0 && header[0] == "Location" {
			g.set(http.StatusTemporaryRedirect, header...)
		}
		first := expect(t, replica(t, minute, g, p), tagOf("a", "v1"), "", permit.Whole, "200")
		c := replica(t, minute, g, p)
		second := expect(t, c, tagOf("a", "v1"), "", permit.Whole, "200 cached")
		if fmt.Sprint(first.Descriptor) != fmt.Sprint(second.Descriptor) || second.Stale || second.Header != nil {
			t.Errorf("%+v, want %+v", second, first)
		}
	}
	// One that cannot be read again is not shared.
	p, g := newPlace(), &registry{}
	g.set(200, "Content-Type", "a/"+strings.Repeat("b", 300))
	expect(t, replica(t, minute, g, p), tagOf("a", "v1"), "", permit.Whole, "200")
	if p.made() != "granted" {
		t.Error("is shared")
	}
}

// TestSharedJoined: who waits with others for a question, but wants the upstream to be
// asked, is not answered by another replica's answer.
func TestSharedJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		cfg := permit.Config{RangeTTL: time.Minute}
		expect(t, replica(t, cfg, g, p), blobOf("a"), "", permit.Range, "200")
		gate := make(chan struct{})
		p.set(func(string) error { <-gate; return nil })
		c := replica(t, cfg, g, p)
		outcomes := make(chan string)
		for _, class := range []permit.Class{permit.Range, permit.Whole, permit.Range, permit.Whole} {
			go func() {
				d, err := c.Check(t.Context(), blobOf("a"), "", class)
				outcomes <- fmt.Sprint(class, answer(d, err))
			}()
			synctest.Wait()
		}
		g.gate = make(chan struct{})
		close(gate)
		got := make(map[string]int)
		for range 2 {
			got[<-outcomes]++
		}
		synctest.Wait()
		close(g.gate)
		for range 2 {
			got[<-outcomes]++
		}
		if got["0200"] != 2 || got["1200 cached"] != 2 || g.asked() != 2 {
			t.Errorf("%v, asked %d times", got, g.asked())
		}
		if s := c.Stats(); s.SharedHits != 1 || s.Heads != 1 || s.Hits != 1 || s.Joined != 1 {
			t.Errorf("%+v", s)
		}
	})
}
