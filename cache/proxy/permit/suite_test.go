package permit_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

const sha = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var hub = route.Target{Scheme: "https", Host: "registry.example.com"}

func blobOf(repository string) permit.Resource {
	return permit.Resource{Target: hub, Repository: repository, Kind: "blobs", Reference: sha}
}

func tagOf(repository, tag string) permit.Resource {
	return permit.Resource{Target: hub, Repository: repository, Kind: "manifests", Reference: tag, Accept: "x"}
}

// registry is an upstream that answers as it is told.
type registry struct {
	mu     sync.Mutex
	status int // 0: it is not reached
	header http.Header
	gate   chan struct{} // if set, HEADs wait for it
	heads  []string      // "repository kind reference credential"
}

var errUnreached = errors.New("connection refused")

func (g *registry) head(ctx context.Context, r permit.Resource, auth permit.Secret) (*http.Response, error) {
	g.mu.Lock()
	g.heads = append(g.heads, fmt.Sprintf("%s %s %s %s", r.Repository, r.Kind, r.Reference, string(auth)))
	gate, status, header := g.gate, g.status, g.header.Clone()
	g.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if status == 0 {
		return nil, errUnreached
	}
	if header == nil {
		header = http.Header{}
	}
	length := int64(-1)
	if status == 200 {
		length = 1234
	}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, ContentLength: length}, nil
}

func (g *registry) set(status int, header ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status, g.header = status, http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		g.header.Set(header[i], header[i+1])
	}
}

func (g *registry) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.heads)
}

// token is a bearer token that says when it ends.
func token(exp string) permit.Secret {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return permit.Secret("Bearer " + strings.Join([]string{
		part(`{"alg":"RS256"}`), part(`{"sub":"me","exp":` + exp + `}`), part("signature"),
	}, "."))
}

// answer is what became of a check, in short.
func answer(d permit.Decision, err error) string {
	if err != nil {
		if d.Status != 0 {
			return "decision with an error"
		}
		return "error"
	}
	s := fmt.Sprint(d.Status)
	for _, x := range []struct {
		is   bool
		what string
	}{{d.Cached, " cached"}, {d.Stale, " stale"}, {d.Trusted, " trusted"}} {
		if x.is {
			s += x.what
		}
	}
	return s
}

func expect(t *testing.T, c *permit.Checker, r permit.Resource, auth permit.Secret, class permit.Class, want string) permit.Decision {
	t.Helper()
	d, err := c.Check(t.Context(), r, auth, class)
	if got := answer(d, err); got != want {
		t.Errorf("%s/%s/%s: %s (%v), want %s", r.Repository, r.Kind, r.Reference, got, err, want)
	}
	return d
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
