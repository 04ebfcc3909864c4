package load

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// Times of tokens. A token server that does not say how long its tokens live gives
// them the default of the distribution project's token specification.
const (
	defaultTokenLife = time.Minute
	tokenRest        = time.Second // in which no second token is asked for after one was refused
)

// access authorises the requests to one registry: it learns from the first refusal
// what the registry wants, and from then on sends it unasked.
type access struct {
	origin  *url.URL
	auth    Auth
	clients map[string]Auth
	server  *http.Client // for token servers

	asked, renewed atomic.Uint64

	mu     sync.Mutex
	wants  wants
	tokens map[tokenKey]*token
}

// wants is what a registry asked for when it refused a request.
type wants struct {
	scheme         auth.AuthenticationScheme // 0: not known yet
	realm, service string
}

type tokenKey struct{ who, scope string }

// token is one that is held, or the place for it.
type token struct {
	busy chan struct{} // holds a value while a token is asked for

	mu      sync.Mutex
	header  []string // the value of Authorization, nil: none yet
	scope   string   // that the registry asked for, where it is not the key's
	renewAt time.Time
	endsAt  time.Time
	err     error // of the last attempt
	errAt   time.Time
}

func newAccess(origin *url.URL, r Registry, rt http.RoundTripper) *access {
	return &access{
		origin: origin, auth: r.Auth, clients: r.Clients, tokens: map[tokenKey]*token{},
		server: &http.Client{Transport: rt, CheckRedirect: sameOrigin},
	}
}

// sameOrigin is the redirect policy of token requests: what carries a password goes
// nowhere else.
func sameOrigin(r *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("token server redirects more than %d times", maxRedirects)
	}
	if first := via[0].URL; r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return fmt.Errorf("token server %s redirects to %s", first.Host, r.URL.Host)
	}
	return nil
}

// of returns the credentials of a client of the trace, and the name they go by.
func (a *access) of(client string) (Auth, string) {
	if own, ok := a.clients[client]; ok && client != "" {
		return own, client
	}
	return a.auth, ""
}

// header returns the value of Authorization for a request, nil if none is wanted as
// far as is known. It asks for a token when there is none or it ends soon.
func (a *access) header(ctx context.Context, client string, scope func() string) ([]string, error) {
	own, who := a.of(client)
	if own.Token != "" {
		return []string{"Bearer " + string(own.Token)}, nil
	}
	a.mu.Lock()
	w := a.wants
	a.mu.Unlock()
	switch w.scheme {
	case auth.BasicAuth:
		return basic(own), nil
	case auth.BearerAuth:
		return a.bearer(ctx, own, tokenKey{who, scope()})
	}
	return nil, nil
}

func basic(own Auth) []string {
	if own.Username == "" {
		return nil
	}
	pair := own.Username + ":" + string(own.Password)
	return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(pair))}
}

// refused takes in the answer to a request that was sent with an Authorization of
// sent, and reports whether there is something better to send.
func (a *access) refused(r *http.Response, sent []string, client string, scope func() string) bool {
	own, who := a.of(client)
	if own.Token != "" {
		return false
	}
	for _, c := range auth.ParseAuthHeader(r.Header) {
		switch c.Scheme {
		case auth.BearerAuth:
			a.want(wants{auth.BearerAuth, c.Parameters["realm"], c.Parameters["service"]})
			return a.place(tokenKey{who, scope()}).drop(a, sent, c.Parameters["scope"])
		case auth.BasicAuth:
			if own.Username == "" || sent != nil && strings.HasPrefix(sent[0], "Basic ") {
				continue
			}
			a.want(wants{scheme: auth.BasicAuth})
			return true
		}
	}
	return false
}

func (a *access) want(w wants) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wants = w
}

func (a *access) place(key tokenKey) *token {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tokens[key]
	if t == nil {
		t = &token{busy: make(chan struct{}, 1)}
		a.tokens[key] = t
	}
	return t
}

// drop forgets the token that was sent if it is the one held: another request may
// have renewed it already.
func (t *token) drop(a *access, sent []string, scope string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if scope != "" {
		t.scope = scope
	}
	if t.header != nil && sent != nil && t.header[0] == sent[0] {
		t.header = nil
		a.renewed.Add(1)
	}
	return true
}

// current returns the token that may be sent at now, and whether it is time to ask for
// another.
func (t *token) current(now time.Time) (header []string, renew bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.header != nil && now.Before(t.endsAt) {
		return t.header, !now.Before(t.renewAt), nil
	}
	if t.err != nil && now.Sub(t.errAt) < tokenRest {
		return nil, false, t.err
	}
	return nil, true, nil
}

// bearer returns a token. One request asks for it; those that have none wait for
// that one, and those whose token only ends soon go on with it.
func (a *access) bearer(ctx context.Context, own Auth, key tokenKey) ([]string, error) {
	t := a.place(key)
	header, renew, err := t.current(time.Now())
	if !renew {
		return header, err
	}
	if header != nil {
		select {
		case t.busy <- struct{}{}:
		default:
			return header, nil
		}
	} else {
		select {
		case t.busy <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-t.busy }()
	if header, renew, err = t.current(time.Now()); !renew {
		return header, err
	}
	fresh, err := a.ask(ctx, own, key, t)
	if err != nil && header != nil {
		return header, nil // it is still good
	}
	return fresh, err
}

// ask asks the token server for a token and puts it in t.
func (a *access) ask(ctx context.Context, own Auth, key tokenKey, t *token) ([]string, error) {
	a.mu.Lock()
	w := a.wants
	a.mu.Unlock()
	t.mu.Lock()
	scope := t.scope
	t.mu.Unlock()
	if scope == "" {
		scope = key.scope
	}
	a.asked.Add(1)
	began := time.Now()
	value, life, err := a.fetch(ctx, own, w, scope)
	if err != nil && ctx.Err() != nil {
		return nil, err // says nothing about the token server
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err = err; err != nil {
		t.errAt = time.Now()
		return nil, err
	}
	t.header = []string{"Bearer " + value}
	t.endsAt = began.Add(life)
	t.renewAt = t.endsAt.Add(-min(life/5, 10*time.Second))
	return t.header, nil
}

func (a *access) fetch(ctx context.Context, own Auth, w wants, scope string) (string, time.Duration, error) {
	realm, err := url.Parse(w.realm)
	if err != nil || realm.Host == "" {
		return "", 0, fmt.Errorf("asking for a token: the registry names no token server but %q", w.realm)
	}
	if a.origin.Scheme == "https" && realm.Scheme != "https" && own.Username != "" {
		return "", 0, errors.New("asking for a token: the token server would get the password in the clear")
	}
	o := auth.TokenOptions{Realm: w.realm, Service: w.service, Username: own.Username, Secret: string(own.Password)}
	if scope != "" {
		o.Scopes = []string{scope}
	}
	r, err := auth.FetchToken(ctx, a.server, http.Header{"User-Agent": userAgent}, o)
	if err != nil {
		return "", 0, fmt.Errorf("asking for a token: %w", err)
	}
	life := defaultTokenLife
	if r.ExpiresInSeconds > 0 {
		life = time.Duration(r.ExpiresInSeconds) * time.Second
	}
	return r.Token, life, nil
}
