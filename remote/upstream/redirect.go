package upstream

import (
	"net/http"
	"net/url"
)

// maxRedirects bounds how often a GET is sent on.
const maxRedirects = 5

// carried are the headers that a request to another host keeps.
var carried = []string{"Accept", "Accept-Encoding", "Range", "If-Range", "If-None-Match", "User-Agent"}

func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// next returns the request that a redirect of r's answer asks for. Credentials stay
// with the origin they are for, and do not come back once they were left behind.
func next(r *http.Request, resp *http.Response) (*http.Request, error) {
	to, err := r.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, &RedirectError{Why: "it leads to no address"} // whose text may hold a secret
	}
	switch {
	case to.Scheme != "http" && to.Scheme != "https", to.Host == "", to.Opaque != "":
		return nil, &RedirectError{Why: "it leads to no http address"}
	case r.URL.Scheme == "https" && to.Scheme == "http":
		return nil, &RedirectError{To: plain(to), Why: "from https to http it would be readable and forgeable on the way"}
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	hop := r.Clone(r.Context())
	hop.URL, hop.Host = to, ""
	if !sameOrigin(r.URL, to) {
		hop.Header = make(http.Header, len(carried))
		for _, name := range carried {
			if v := r.Header.Values(name); len(v) > 0 {
				hop.Header[name] = v
			}
		}
	}
	return hop, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && hostOf(a) == hostOf(b) }

// bare returns what of a request may be known of it: no credentials, no query.
func bare(r *http.Request) *http.Request {
	u := &url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path, RawPath: r.URL.RawPath}
	return &http.Request{Method: r.Method, URL: u, Host: u.Host, Header: make(http.Header)}
}
