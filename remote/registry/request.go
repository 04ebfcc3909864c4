package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// request is one request to the API of a registry, for any of its hosts.
type request struct {
	method string
	path   string // after /v2/<repository>/
	query  url.Values
	header http.Header
	ref    reference
	name   string // of what is asked for, for errors
	scope  string

	// body returns the body anew for each attempt; nil is none. size is its
	// length in bytes.
	body func() (io.Reader, error)
	size int64
}

// apiURL returns the address of the request at a host.
func (rq *request) apiURL(e *endpoint) *url.URL {
	u := &url.URL{
		Scheme: e.scheme, Host: e.host,
		Path: strings.TrimSuffix(e.path, "/") + "/" + rq.ref.repo + "/" + rq.path,
	}
	if rq.query == nil && e.ns == "" {
		return u
	}
	q := url.Values{}
	for k, v := range rq.query {
		q[k] = v
	}
	if e.ns != "" {
		q.Set("ns", e.ns)
	}
	u.RawQuery = q.Encode()
	return u
}

// do sends the request to a host of the registry, with credentials if it wants
// some, and returns whatever it finally answers, redirects included.
func (c *Client) do(ctx context.Context, e *endpoint, rq *request, u *url.URL) (*http.Response, error) {
	s := subject{e: e, repo: rq.ref.repo, scope: rq.scope}
	// Anonymous, then with the challenge's token; or with an old token, a
	// new one, and one for the scopes the challenge names.
	for attempt := 1; ; attempt++ {
		header, fresh, err := c.auth.header(ctx, s)
		if err != nil {
			return nil, transportError(e.host, rq.name, err)
		}
		resp, err := c.roundTrip(ctx, e, rq, u, header)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			return resp, nil
		}
		again, err := c.auth.refused(s, resp, header, fresh)
		if err != nil {
			resp.Body.Close()
			return nil, &Error{Host: e.host, Ref: rq.name, Err: err, permanent: true}
		}
		if !again || attempt == 3 {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// roundTrip sends the request once, to the host itself.
func (c *Client) roundTrip(ctx context.Context, e *endpoint, rq *request, u *url.URL, authorization string) (*http.Response, error) {
	hr, err := rq.http(ctx, u, e.agent)
	if err != nil {
		return nil, err
	}
	for k, v := range e.header {
		hr.Header[http.CanonicalHeaderKey(k)] = v
	}
	if authorization != "" {
		hr.Header.Set("Authorization", authorization)
	}
	resp, err := e.data.RoundTrip(hr)
	if err != nil {
		return nil, requestError(ctx, e.host, rq.name, err)
	}
	return resp, nil
}

// http makes the request without what only the host itself may see.
func (rq *request) http(ctx context.Context, u *url.URL, agent string) (*http.Request, error) {
	hr := (&http.Request{
		Method: rq.method, URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(rq.header)+3),
	}).WithContext(ctx)
	for k, v := range rq.header {
		hr.Header[k] = v
	}
	hr.Header["User-Agent"] = []string{agent}
	if rq.body == nil {
		return hr, nil
	}
	body, err := rq.body()
	if err != nil {
		return nil, err
	}
	hr.Body = io.NopCloser(body)
	hr.ContentLength = rq.size
	if rq.size == 0 {
		hr.Body = http.NoBody
	}
	return hr, nil
}

// requestError is transportError for requests under ctx: when that has ended,
// the error says so.
func requestError(ctx context.Context, host, name string, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = cause
	}
	return transportError(host, name, err)
}
