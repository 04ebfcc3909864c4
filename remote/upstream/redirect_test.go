package upstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// hop is a server that writes down the credentials it gets, and sends on to where
// its queue says.
type hop struct {
	url  string
	got  []string // Authorization | Cookie | X-Own | Range
	next []string
}

func newHop(t *testing.T, start func(http.Handler) *httptest.Server) *hop {
	h := &hop{}
	s := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.got = append(h.got, strings.Join([]string{
			r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("X-Own"), r.Header.Get("Range"),
		}, "|"))
		if len(h.next) == 0 {
			fmt.Fprint(w, "content")
			return
		}
		w.Header().Set("Location", h.next[0])
		h.next = h.next[1:]
		w.WriteHeader(307)
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func trusting(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

// TestCredentialsOverRedirects: they reach the origin they are for, and no other,
// not even by a way back.
func TestCredentialsOverRedirects(t *testing.T) {
	home, away := newHop(t, httptest.NewServer), newHop(t, httptest.NewServer)
	var secure *httptest.Server
	tlsHop := newHop(t, func(h http.Handler) *httptest.Server { secure = httptest.NewTLSServer(h); return secure })
	c := client(t, upstream.Config{TLS: trusting(secure)})
	const all, none = "Bearer token|session=1|mine|bytes=1-2", "|||bytes=1-2"
	for _, tc := range []struct {
		what                       string
		home, away                 []string
		atHome, atAway, atSameOnes []string
	}{
		{what: "same origin", home: []string{"/other"}, atHome: []string{all, all}},
		{what: "relative", home: []string{"../x", "y?z"}, atHome: []string{all, all, all}},
		{what: "other port", home: []string{away.url + "/x"}, atHome: []string{all}, atAway: []string{none}},
		{what: "there and back", home: []string{away.url + "/x"}, away: []string{home.url + "/y"},
			atHome: []string{all, none}, atAway: []string{none}},
		{what: "other scheme", home: []string{tlsHop.url + "/x"}, atHome: []string{all}, atSameOnes: []string{none}},
		{what: "user in the address", home: []string{strings.Replace(away.url, "://", "://me:word@", 1)},
			atHome: []string{all}, atAway: []string{none}},
		{what: "without scheme", home: []string{strings.TrimPrefix(away.url, "http:") + "/x"},
			atHome: []string{all}, atAway: []string{none}},
	} {
		home.got, away.got, tlsHop.got = nil, nil, nil
		home.next, away.next = tc.home, tc.away
		r := request(t, "GET", home.url+"/v2/a/blobs/b", "Bearer token")
		r.Header.Set("Cookie", "session=1")
		r.Header.Set("X-Own", "mine")
		r.Header.Set("Range", "bytes=1-2")
		resp, err := c.Do(r)
		if err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		resp.Body.Close()
		for _, x := range []struct {
			at        string
			got, want []string
		}{{"home", home.got, tc.atHome}, {"away", away.got, tc.atAway}, {"tls", tlsHop.got, tc.atSameOnes}} {
			if fmt.Sprint(x.got) != fmt.Sprint(x.want) {
				t.Errorf("%s: %s got %q, want %q", tc.what, x.at, x.got, x.want)
			}
		}
	}
}

func TestRedirectsRefused(t *testing.T) {
	plain := newHop(t, httptest.NewServer)
	var secure *httptest.Server
	home := newHop(t, func(h http.Handler) *httptest.Server { secure = httptest.NewTLSServer(h); return secure })
	c := client(t, upstream.Config{TLS: trusting(secure)})
	for what, next := range map[string][]string{
		"https to http": {plain.url + "/x?sig=SECRET"},
		"file":          {"file:///etc/passwd"},
		"ftp":           {"ftp://example.com/?sig=SECRET"},
		"no host":       {"https:///x?sig=SECRET"},
		"opaque":        {"https:x?sig=SECRET"},
		"no address":    {"https://[::1?sig=SECRET"},
		"six":           {"/1", "/2", "/3", "/4", "/5", "/6?sig=SECRET"},
	} {
		home.next = next
		_, _, err := do(t, c, "GET", home.url+"/v2/a/blobs/b", "Bearer token")
		var refused *upstream.RedirectError
		if !errors.As(err, &refused) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(plain.got) != 0 {
		t.Errorf("http was asked: %q", plain.got)
	}
	home.next = []string{"/1", "/2", "/3", "/4", "/5"}
	if _, body, err := do(t, c, "GET", home.url+"/v2/a/blobs/b", ""); err != nil || body != "content" {
		t.Errorf("five redirects: %q, %v", body, err)
	}
	if s := c.Stats(); s.WorkersBusy != 0 {
		t.Errorf("%d workers still busy", s.WorkersBusy)
	}
}

// TestHeadIsNotRedirected: where it would lead rejects HEAD, and that it leads
// somewhere is the answer.
func TestHeadIsNotRedirected(t *testing.T) {
	away := newHop(t, httptest.NewServer)
	home := newHop(t, httptest.NewServer)
	home.next = []string{away.url}
	resp, _, err := do(t, client(t, upstream.Config{}), "HEAD", home.url+"/v2/a/blobs/b", "Bearer token")
	if err != nil || resp.StatusCode != 307 || len(away.got) != 0 {
		t.Errorf("%v, %v, %q", resp, err, away.got)
	}
}

// TestRequest: what is sent is what was given, to whom it names.
func TestRequest(t *testing.T) {
	var got http.Header
	var host, uri string
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, host, uri = r.Header, r.Host, r.RequestURI
		w.Header().Set("X-From", "registry")
		w.WriteHeader(418)
	})
	c := client(t, upstream.Config{UserAgent: "registry-cache/1"})
	r := request(t, "GET", at+"/v2/a/tags/list?n=5&last=x", "Bearer token")
	r.Host = "other.example"
	r.Header.Set("Accept", "a, b")
	before := r.Header.Clone()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if "http://"+host != at || uri != "/v2/a/tags/list?n=5&last=x" {
		t.Errorf("%s was asked for %s", host, uri)
	}
	want := http.Header{"Authorization": {"Bearer token"}, "Accept": {"a, b"}, "User-Agent": {"registry-cache/1"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent %v, want %v", got, want)
	}
	if fmt.Sprint(r.Header) != fmt.Sprint(before) || r.Host != "other.example" {
		t.Errorf("the request was changed: %v", r)
	}
	if resp.StatusCode != 418 || resp.Header.Get("X-From") != "registry" {
		t.Errorf("answer %v", resp)
	}
	if q := resp.Request; q.URL.String() != at+"/v2/a/tags/list" || len(q.Header) != 0 {
		t.Errorf("the answer's request is %v", q)
	}
}

func TestRequestsRefused(t *testing.T) {
	c := client(t, upstream.Config{})
	at := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	for _, r := range []*http.Request{
		request(t, "POST", at+"/v2/a/blobs/uploads/", ""),
		request(t, "DELETE", at+"/v2/a/manifests/x", ""),
		request(t, "GET", strings.Replace(at, "://", "://me:word@", 1), ""),
		request(t, "GET", "file:///etc/passwd", ""),
		request(t, "GET", "/relative", ""),
		httptest.NewRequest("GET", at, strings.NewReader("body")),
	} {
		_, err := c.Do(r)
		e, ok := errors.AsType[*upstream.Error](err)
		if !ok || e.Temporary() || strings.Contains(err.Error(), "word") {
			t.Errorf("%s %s: %v", r.Method, r.URL.Redacted(), err)
		}
	}
}

// TestSameOrigin: what is one origin, in whatever spelling, and what only looks so.
func TestSameOrigin(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		same     bool
	}{
		{"https://registry.example/a", "/b?c#d", true},
		{"https://registry.example/a", "https://REGISTRY.example:443/b", true},
		{"https://registry.example:443/a", "//registry.example/b", true},
		{"http://registry.example/a", "http://registry.example:80/b", true},
		{"http://registry.example/a", "https://registry.example/b", false},
		{"http://registry.example:443/a", "https://registry.example/b", false},
		{"https://registry.example/a", "https://registry.example:80/b", false},
		{"https://registry.example/a", "https://registry.example:8443/b", false},
		{"https://registry.example/a", "https://cdn.registry.example/b", false},
		{"https://registry.example/a", "https://registry.example.evil.example/b", false},
		{"https://registry.example/a", "https://registry.example@evil.example/b", false},
		{"https://cdn.registry.example/a", "https://registry.example/b", false},
		{"http://127.0.0.1/a", "http://[::ffff:127.0.0.1]/b", false},
	} {
		r := request(t, "GET", tc.from, "Bearer token")
		r.Header.Set("Accept", "x")
		r.Header.Set("Accept-Encoding", "identity")
		hop, err := upstream.Next(r, tc.to)
		if err != nil {
			t.Errorf("%v: %v", tc, err)
			continue
		}
		if got := hop.Header.Get("Authorization") != ""; got != tc.same || hop.Header.Get("Accept") != "x" ||
			hop.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("%v: header %v", tc, hop.Header)
		}
		if hop.URL.User != nil || hop.URL.Fragment != "" || hop.Host != "" {
			t.Errorf("%v: %v", tc, hop.URL)
		}
	}
}
