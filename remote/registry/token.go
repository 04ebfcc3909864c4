package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// tokenTimeout bounds one request to a token server.
const tokenTimeout = 30 * time.Second

// fetchToken asks the token server of a challenge for a bearer token, with an
// identity token by OAuth, else as docker does by GET.
func fetchToken(ctx context.Context, e *endpoint, c challenge, scopes []string, cred credential) (string, time.Duration, error) {
	realm, err := url.Parse(c.realm)
	if err != nil {
		return "", 0, fmt.Errorf("parsing the address of the token server of %s: %w", e.host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	options := auth.TokenOptions{
		Realm: c.realm, Service: c.service, Scopes: scopes,
		Username: cred.user, Secret: cred.secret,
	}
	header := http.Header{}
	if realm.Host == e.host { // a host's own headers are for its eyes only
		maps.Copy(header, e.header)
	}
	header.Set("User-Agent", e.agent)
	var token string
	var seconds int
	if cred.user == "" && cred.secret != "" {
		var r *auth.OAuthTokenResponse
		if r, err = auth.FetchTokenWithOAuth(ctx, e.tokens, header, "reprise", options); err == nil {
			token, seconds = r.AccessToken, r.ExpiresInSeconds
		}
	} else {
		var r *auth.FetchTokenResponse
		if r, err = auth.FetchToken(ctx, e.tokens, header, options); err == nil {
			token, seconds = r.Token, r.ExpiresInSeconds
		}
	}
	if err != nil {
		return "", 0, tokenError(realm.Host, scopes, err)
	}
	life := defaultTokenLifetime
	if seconds > 0 {
		life = time.Duration(seconds) * time.Second
	}
	return token, life, nil
}

// tokenError is an error of a token server in the terms of this package.
func tokenError(host string, scopes []string, err error) error {
	ref := fmt.Sprintf("token for %v", scopes)
	if s, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		return &Error{
			Host: host, Ref: ref, Status: s.StatusCode, Excerpt: excerpt(s.Body),
			permanent: s.StatusCode < 500 && s.StatusCode != http.StatusTooManyRequests,
		}
	}
	return transportError(host, ref, err)
}

// redirectSafely is the redirect policy of token requests: what carries a
// password goes nowhere else.
func redirectSafely(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) >= maxRedirects {
		return fmt.Errorf("token server redirects more than %d times", maxRedirects)
	}
	if r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return fmt.Errorf("token server %s redirects to %s://%s", first.Host, r.URL.Scheme, r.URL.Host)
	}
	return nil
}
