package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxRedirects bounds how far a request is sent around.
const maxRedirects = 10

// fetch sends a GET or HEAD to a host and follows its redirects. The response
// has any status but a redirect, and its Request tells where it came from.
func (c *Client) fetch(ctx context.Context, e *endpoint, rq *request) (*http.Response, error) {
	u := rq.apiURL(e)
	resp, err := c.do(ctx, e, rq, u)
	if err != nil {
		return nil, err
	}
	home := resp.Request.URL // may be http although u is https: see docker.NewHTTPFallback
	trail, visited := []string{plain(home)}, []string{home.String()}
	for isRedirect(resp.StatusCode) {
		resp.Body.Close()
		from := resp.Request.URL
		to, err := redirectTarget(resp)
		if err != nil {
			return nil, &Error{Host: from.Host, Ref: rq.name, Status: resp.StatusCode, Err: err, permanent: true}
		}
		if len(trail) > maxRedirects || slices.Contains(visited, to.String()) {
			return nil, &Error{Host: from.Host, Ref: rq.name, Status: resp.StatusCode, permanent: true,
				Err: fmt.Errorf("redirects in a circle, or more than %d of them: %s", maxRedirects,
					strings.Join(append(trail, plain(to)), " -> "))}
		}
		trail, visited = append(trail, plain(to)), append(visited, to.String())
		if sameOrigin(to, home) {
			resp, err = c.do(ctx, e, rq, to)
		} else {
			resp, err = c.follow(ctx, e, rq, to, home)
		}
		if err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// follow sends the request to another host, without credentials, cookies and
// the headers configured for e. The Referer is what net/http sends: there are
// stores that check it.
func (c *Client) follow(ctx context.Context, e *endpoint, rq *request, to, from *url.URL) (*http.Response, error) {
	hr, err := rq.http(ctx, to, e.agent)
	if err != nil {
		return nil, err
	}
	hr.Header.Set("Referer", plain(from))
	resp, err := e.foreign.RoundTrip(hr)
	if err != nil {
		return nil, requestError(ctx, to.Host, rq.name, err)
	}
	return resp, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirectTarget returns where a redirect leads, if that is somewhere to go.
func redirectTarget(resp *http.Response) (*url.URL, error) {
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, fmt.Errorf("redirect without a Location")
	}
	from := resp.Request.URL
	to, err := from.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("redirect to an address that is none") // which may hold a secret
	}
	switch {
	case to.Scheme != "http" && to.Scheme != "https", to.Host == "":
		return nil, fmt.Errorf("redirect to %s, which is no http address", plain(to))
	case from.Scheme == "https" && to.Scheme == "http":
		return nil, fmt.Errorf("redirect from https to %s refused: it would be readable and forgeable on the way", plain(to))
	}
	to.Fragment = ""
	to.User = nil
	return to, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// plain returns an address without what may be secret in it.
func plain(u *url.URL) string {
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}
