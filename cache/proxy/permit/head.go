package permit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// URL returns the address of the resource. A repository or reference that is none
// is an error: it would lead elsewhere.
func (r Resource) URL() (*url.URL, error) {
	for _, s := range strings.Split(r.Repository, "/") {
		if !isSegment(s) {
			return nil, fmt.Errorf("%q is not a repository", r.Repository)
		}
	}
	if !isSegment(r.Kind) || !isSegment(r.Reference) {
		return nil, fmt.Errorf("%q is not a reference of %q", r.Reference, r.Kind)
	}
	return &url.URL{
		Scheme: r.Target.Scheme, Host: r.Target.Host,
		Path: "/v2/" + r.Repository + "/" + r.Kind + "/" + r.Reference,
	}, nil
}

// isSegment reports whether s is made of the letters of names, tags and digests.
func isSegment(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._-:+=", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// Head makes a HeadFunc of what sends requests, such as upstream.Client.Do.
func Head(do func(*http.Request) (*http.Response, error)) HeadFunc {
	return func(ctx context.Context, r Resource, auth Secret) (*http.Response, error) {
		u, err := r.URL()
		if err != nil {
			return nil, err
		}
		// Not by http.NewRequest: that would parse the URL again.
		req := (&http.Request{Method: http.MethodHead, URL: u, Host: u.Host, Header: make(http.Header)}).WithContext(ctx)
		if auth != "" {
			req.Header.Set("Authorization", string(auth))
		}
		if r.Accept != "" {
			req.Header.Set("Accept", r.Accept)
		}
		resp, err := do(req)
		if err == nil && resp.Body == nil {
			return nil, errors.New("response without a body")
		}
		return resp, err
	}
}
