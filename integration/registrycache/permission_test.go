package registrycache_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// private is an upstream with two users and, of each, a repository.
type private struct {
	*rig
	blob       *origin.Content // in both repositories
	secret     *origin.Content // in alice's only
	manifest   []byte
	digest     digest.Digest
	alice, bob string // Authorization
}

func beginPrivate(t *testing.T, denial int, over values) *private {
	t.Helper()
	p := &private{rig: begin(t, over), blob: origin.Random(10, 300<<10), secret: origin.Random(11, 200<<10)}
	p.up.Private(time.Hour, denial)
	p.up.AddUser("alice", "alice's password")
	p.up.AddUser("bob", "bob's password")
	p.up.SetReaders("team/alice", "alice")
	p.up.SetReaders("team/bob", "bob")
	p.up.AddBlob("team/alice", p.blob)
	p.up.AddBlob("team/alice", p.secret)
	p.up.AddBlob("team/bob", p.blob)
	p.manifest = []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + p.blob.Digest.String() + `","size":307200},"layers":[]}`)
	p.digest = p.up.AddManifest("team/alice", "v1", ocispec.MediaTypeImageManifest, p.manifest)
	p.alice, p.bob = p.up.Token("alice"), p.up.Token("bob")
	return p
}

// paths are all ways to what alice has.
func (p *private) paths() []string {
	return []string{
		"team/alice/blobs/" + p.blob.Digest.String(), "team/alice/blobs/" + p.secret.Digest.String(),
		"team/alice/manifests/v1", "team/alice/manifests/" + p.digest.String(),
	}
}

// readAll reads everything as alice, twice: the second time it is cached.
func (p *private) readAll() {
	p.t.Helper()
	for range 2 {
		for _, path := range p.paths() {
			resp, body, err := p.target(p.alice).Get(p.ctx, path, nil)
			if err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 {
				p.t.Fatalf("reading %s as who may: %v, %v", path, resp, err)
			}
		}
		_, err := p.target(p.alice).Pull(p.ctx, swarm.Pull{Repo: "team/alice", Digest: p.secret.Digest, Want: p.secret.Bytes(), Off: 100, N: 1000})
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// shut tries every way to what alice has and wants to see nothing of it.
func (p *private) shut(as string, want ...int) {
	p.t.Helper()
	for _, path := range p.paths() {
		for _, header := range []map[string]string{nil, {"Range": "bytes=0-99"}, {"If-None-Match": `"` + p.secret.Digest.String() + `"`}} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				p.closed(as, method, path, header, want)
			}
		}
	}
}

func (p *private) closed(as, method, path string, header map[string]string, want []int) {
	p.t.Helper()
	resp, err := p.target(as).Do(p.ctx, method, path, header)
	if err != nil {
		p.t.Errorf("%s %s: %v", method, path, err)
		return
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(resp.Body) //nolint:errcheck // what came is looked at
	ok := false
	for _, w := range want {
		ok = ok || resp.StatusCode == w
	}
	if !ok || bytes.Contains(b.Bytes(), p.secret.Bytes()[:64]) || bytes.Contains(b.Bytes(), p.blob.Bytes()[:64]) || bytes.Contains(b.Bytes(), p.manifest) {
		p.t.Errorf("%s %s %v: %s, %d bytes of body; want one of %v and nothing of it", method, path, header, resp.Status, b.Len(), want)
	}
	if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
		p.t.Errorf("%s %s: 401 without a challenge", method, path)
	}
}

// TestNoLeakBetweenCallers has alice fill the cache. Whoever may not read her
// repository upstream gets nothing of it, whatever the upstream answers, and the
// blob that is in bob's too is his without being fetched again.
func TestNoLeakBetweenCallers(t *testing.T) {
	for name, denial := range map[string]int{"401": http.StatusUnauthorized, "403": http.StatusForbidden, "404": http.StatusNotFound} {
		t.Run(name, func(t *testing.T) {
			p := beginPrivate(t, denial, nil)
			p.readAll()
			p.shut("", http.StatusUnauthorized)
			p.shut(p.bob, denial)
			p.shut("Bearer forged", http.StatusUnauthorized)
			p.up.Reset()
			p.pull(p.bob, "team/bob", p.blob)
			if c := p.up.Stats().Blobs[p.blob.Digest]; c.Bytes != 0 || c.Heads != 1 {
				t.Errorf("a blob that is cached, by way of another repository: %+v upstream, want one HEAD", c)
			}
			p.refused(p.target(p.bob), "team/bob/blobs/"+p.secret.Digest.String(), nil, http.StatusNotFound)
			p.readAll()
		})
	}
}

// TestEveryHitIsAsked counts the questions: one HEAD for each whole read.
func TestEveryHitIsAsked(t *testing.T) {
	t.Parallel()
	p := beginPrivate(t, http.StatusForbidden, nil)
	p.readAll()
	p.up.Reset()
	for range 5 {
		p.pull(p.alice, "team/alice", p.secret)
	}
	if c := p.up.Stats().Blobs[p.secret.Digest]; c.Heads != 5 || c.Gets != 0 {
		t.Errorf("5 hits: %d HEADs and %d GETs upstream, want 5 and 0", c.Heads, c.Gets)
	}
	p.up.Reset()
	for i := range 50 {
		_, err := p.target(p.alice).Pull(p.ctx, swarm.Pull{Repo: "team/alice", Digest: p.secret.Digest, Want: p.secret.Bytes(), Off: int64(i), N: 1000})
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := p.up.Stats().Blobs[p.secret.Digest]; c.Heads > 1 || c.Gets != 0 {
		t.Errorf("50 hits of parts within a minute: %d HEADs and %d GETs upstream, want at most 1 and none", c.Heads, c.Gets)
	}
}

// TestRevocation takes rights and content away upstream while the cache has all.
func TestRevocation(t *testing.T) {
	t.Parallel()
	p := beginPrivate(t, http.StatusForbidden, values{"permission": values{"rangeTTL": "0s", "negativeTTL": "0s"}})
	p.readAll()
	p.up.SetReaders("team/alice", "carol")
	p.shut(p.alice, http.StatusForbidden)
	p.up.SetReaders("team/alice", "alice")
	p.eventually("a refusal is forgotten", func() bool {
		resp, _, err := p.target(p.alice).Get(p.ctx, p.paths()[0], nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	for _, path := range []string{"blobs/" + p.secret.Digest.String(), "manifests/v1", "manifests/" + p.digest.String()} {
		p.up.Remove("team/alice", path)
		p.refused(p.target(p.alice), "team/alice/"+path, nil, http.StatusNotFound)
	}
}

// TestRangePermissionIsOnesOwn has bob read parts while alice's permission for
// parts is remembered.
func TestRangePermissionIsOnesOwn(t *testing.T) {
	p := beginPrivate(t, http.StatusForbidden, nil)
	p.readAll()
	path := "team/alice/blobs/" + p.secret.Digest.String()
	for range 3 {
		p.closed(p.bob, http.MethodGet, path, map[string]string{"Range": "bytes=100-199"}, []int{http.StatusForbidden})
		p.closed("", http.MethodGet, path, map[string]string{"Range": "bytes=100-199"}, []int{http.StatusUnauthorized})
	}
	// What is remembered for parts is not for the whole.
	p.up.SetReaders("team/alice")
	p.closed(p.alice, http.MethodGet, path, nil, []int{http.StatusForbidden})
}

// TestUpstreamAway tries what the policies do while the upstream fails.
func TestUpstreamAway(t *testing.T) {
	away := map[string]origin.Fault{
		"500": {Status: http.StatusInternalServerError},
		"503": {Status: http.StatusServiceUnavailable},
		"429": {Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "1"}},
	}
	for name, fault := range away {
		t.Run("fail-closed/"+name, func(t *testing.T) {
			p := beginPrivate(t, http.StatusForbidden, values{"permission": values{"rangeTTL": "0s"}})
			p.readAll()
			p.up.SetRule(func(*http.Request) origin.Fault { return fault })
			p.shut(p.alice, 429, 500, 502, 503, 504)
		})
		t.Run("stale-if-error/"+name, func(t *testing.T) {
			p := beginPrivate(t, http.StatusForbidden, values{"permission": values{"policy": "stale-if-error", "rangeTTL": "0s"}})
			p.readAll()
			p.up.SetRule(func(*http.Request) origin.Fault { return fault })
			p.pull(p.alice, "team/alice", p.secret)
			p.shut(p.bob, 401, 403, 429, 500, 502, 503, 504)
			p.shut("", 401, 429, 500, 502, 503, 504)
		})
	}
	t.Run("trusted", func(t *testing.T) {
		p := beginPrivate(t, http.StatusForbidden, values{"permission": values{"policy": "trusted"}})
		p.readAll()
		p.up.SetRule(func(*http.Request) origin.Fault { return origin.Fault{Status: http.StatusInternalServerError} })
		p.up.Reset()
		p.pull("", "team/alice", p.secret)
		if s := p.up.Stats(); s.Heads != 0 || len(p.up.Requests()) != 0 {
			t.Errorf("a trusted network: %d requests upstream for a hit", len(p.up.Requests()))
		}
	})
	t.Run("hanging", func(t *testing.T) {
		p := beginPrivate(t, http.StatusForbidden, values{"server": values{"upstreamTimeout": "1s"}, "permission": values{"rangeTTL": "0s"}})
		p.readAll()
		p.up.SetRule(func(*http.Request) origin.Fault { return origin.Fault{Hang: true} })
		p.closed(p.alice, http.MethodGet, p.paths()[1], nil, []int{502, 503, 504})
	})
}

// TestQuota has the upstream ask to be left alone: nobody asks it before the
// time that it named.
func TestQuota(t *testing.T) {
	t.Parallel()
	p := beginPrivate(t, http.StatusForbidden, nil)
	p.readAll()
	p.up.SetRule(func(*http.Request) origin.Fault {
		return origin.Fault{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "300"}}
	})
	p.closed(p.alice, http.MethodGet, p.paths()[1], nil, []int{429})
	p.up.Reset()
	for range 10 {
		resp, _, err := p.target(p.alice).Get(p.ctx, p.paths()[1], nil)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
			t.Errorf("within Retry-After: %v, %v; want 429 with Retry-After", resp, err)
		}
	}
	if n := len(p.up.Requests()); n != 0 {
		t.Errorf("the upstream was asked %d times within its Retry-After", n)
	}
}
