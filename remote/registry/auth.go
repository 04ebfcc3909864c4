package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
)

// The token of a registry that does not say how long it is valid is valid for a
// minute, by the distribution specification.
const defaultTokenLifetime = time.Minute

// authorizer keeps what hosts want to see in Authorization headers. Tokens are
// renewed when a quarter of their life, at most a minute, is left, by one
// request while the others go on with the old one.
//
// containerd's own authorizer is not used because it was made for one pull: it
// renews at the very second of expiry, keeps the error of a failed renewal for
// ever, and reads credentials only once.
type authorizer struct {
	credential func(ctx context.Context, host, repo string) (credential, error)

	mu         sync.Mutex
	challenges map[string]challenge // by origin
	grants     map[grantKey]*grant
}

func newAuthorizer(credential func(ctx context.Context, host, repo string) (credential, error)) *authorizer {
	return &authorizer{
		credential: credential,
		challenges: make(map[string]challenge),
		grants:     make(map[grantKey]*grant),
	}
}

// challenge is how a host wants to be convinced.
type challenge struct {
	scheme         auth.AuthenticationScheme
	realm, service string
}

type grantKey struct{ origin, scope string }

// grant is the Authorization header for one scope of one host.
type grant struct {
	turn chan struct{} // of capacity 1: filled by the request that renews

	// Guarded by authorizer.mu:
	scopes        []string // that the host asked for; nil: its own
	header        string
	renew, expire time.Time
	failures      int   // renewals that failed
	err           error // of the last of them
}

// subject is who asks for what where.
type subject struct {
	e     *endpoint
	repo  string
	scope string // or several, with a space between them
}

func (s subject) key() grantKey { return grantKey{s.e.origin, s.scope} }

// header returns the Authorization header for a request, empty as long as the
// host did not ask for one. fresh says that it was made for this request, so
// if the host refuses it there is no better one.
func (a *authorizer) header(ctx context.Context, s subject) (header string, fresh bool, err error) {
	a.mu.Lock()
	c, ok := a.challenges[s.e.origin]
	if !ok {
		a.mu.Unlock()
		return "", false, nil
	}
	g := a.grant(s.key())
	now := time.Now()
	header, valid, due := g.header, now.Before(g.expire), !now.Before(g.renew)
	failures := g.failures
	a.mu.Unlock()

	if !valid {
		select {
		case g.turn <- struct{}{}:
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	} else {
		if !due {
			return header, false, nil
		}
		select {
		case g.turn <- struct{}{}:
		default:
			return header, false, nil
		}
	}
	defer func() { <-g.turn }()
	return a.renew(ctx, s, c, g, failures)
}

// grant returns the entry for key, new if need be; a.mu is held.
func (a *authorizer) grant(key grantKey) *grant {
	g := a.grants[key]
	if g == nil {
		g = &grant{turn: make(chan struct{}, 1)}
		a.grants[key] = g
	}
	return g
}

// renew makes a header; the caller has the turn of g. failures is the count
// when the request came: if it grew since, somebody tried while the request
// waited, and the error is shared.
func (a *authorizer) renew(ctx context.Context, s subject, c challenge, g *grant, failures int) (string, bool, error) {
	a.mu.Lock()
	now := time.Now()
	header, valid := g.header, now.Before(g.expire)
	done := now.Before(g.renew)
	failed, err := g.failures != failures, g.err
	scopes := g.scopes
	a.mu.Unlock()
	switch {
	case done:
		return header, true, nil
	case failed && !valid:
		return "", false, err
	}

	fresh, life, err := a.obtain(ctx, s, c, scopes)
	if err != nil && ctx.Err() != nil {
		return "", false, ctx.Err() // says nothing about the next one
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		g.header, g.expire = fresh, now.Add(life)
		g.renew = g.expire.Add(-min(life/4, time.Minute))
		return fresh, true, nil
	}
	if valid = time.Now().Before(g.expire); valid {
		g.renew = time.Now().Add(time.Until(g.expire) / 4)
		return g.header, false, nil
	}
	g.failures++
	g.err = err
	return "", false, err
}

// forever is the lifetime of headers that do not expire by the clock.
const forever = 10 * 365 * 24 * time.Hour

// obtain returns a new header and how long it is valid.
func (a *authorizer) obtain(ctx context.Context, s subject, c challenge, scopes []string) (string, time.Duration, error) {
	cred, err := a.credential(ctx, s.e.host, s.repo)
	if err != nil {
		return "", 0, err
	}
	if c.scheme == auth.BasicAuth {
		if cred.user == "" || cred.secret == "" {
			return "", 0, fmt.Errorf("%s asks for a user name and password, but none are configured: log in, "+
				"or add it to the docker config.json: %w", s.e.host, errdefs.ErrUnauthenticated)
		}
		basic := base64.StdEncoding.EncodeToString([]byte(cred.user + ":" + cred.secret))
		return "Basic " + basic, forever, nil
	}
	if cred.token != "" {
		return "Bearer " + cred.token, forever, nil
	}
	// The scope a host names is for the request it refused, which may be the
	// HEAD before an upload; but where the repository has another name than
	// here, the host's is the only right one.
	if scopes == nil || s.e.path == "/v2" {
		scopes = slices.Clone(scopes)
		for _, want := range strings.Fields(s.scope) {
			if !slices.Contains(scopes, want) {
				scopes = append(scopes, want)
			}
		}
	}
	token, life, err := fetchToken(ctx, s.e, c, scopes, cred)
	if err != nil {
		return "", 0, err
	}
	return "Bearer " + token, life, nil
}

// refused takes note of a response that says the request was not authorized
// with used, and reports whether another attempt may be.
func (a *authorizer) refused(s subject, resp *http.Response, used string, fresh bool) (bool, error) {
	c, scopes, err := parseChallenge(resp.Header)
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.grant(s.key())
	denied := resp.StatusCode == http.StatusForbidden && fresh // whoever we are
	if used != "" && g.header == used && !denied {
		g.header, g.renew, g.expire = "", time.Time{}, time.Time{}
	}
	if err != nil {
		// A 403 has no challenge; an expired credential may be the reason.
		return used != "" && !fresh, nil
	}
	origin := s.e.origin
	if used != "" && fresh && a.challenges[origin] == c && (scopes == nil || slices.Equal(scopes, g.scopes)) {
		return false, nil
	}
	if c.scheme == auth.BearerAuth && !s.e.trusts(c.realm) {
		return false, errors.New("the token server is not reached by https although the registry is")
	}
	a.challenges[origin] = c
	g.scopes = scopes
	return true, nil
}

// parseChallenge returns the best challenge of a 401 that this client can
// answer, and the scopes it names.
func parseChallenge(h http.Header) (challenge, []string, error) {
	for _, c := range auth.ParseAuthHeader(h) { // bearer first
		switch c.Scheme {
		case auth.BearerAuth:
			realm := c.Parameters["realm"]
			if realm == "" {
				continue
			}
			var scopes []string
			if s := c.Parameters["scope"]; s != "" {
				scopes = strings.Fields(s)
			}
			return challenge{c.Scheme, realm, c.Parameters["service"]}, scopes, nil
		case auth.BasicAuth:
			return challenge{scheme: c.Scheme}, nil, nil
		}
	}
	return challenge{}, nil, errors.New("no bearer or basic challenge")
}
