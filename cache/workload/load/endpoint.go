package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultTimeout     = time.Minute
	defaultMaxInFlight = 4096
	maxRedirects       = 10
	drained            = 64 << 10 // bytes of an unwanted body that are read to keep its connection
)

var userAgent = []string{"trace-replayer"}

// endpoint is a registry that requests go to.
type endpoint struct {
	base      *url.URL
	transport *http.Transport
	access    *access
}

func newEndpoint(r Registry, cfg Config) (*endpoint, error) {
	base, err := url.Parse(strings.TrimSuffix(r.Base, "/"))
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the address, in which there may be a password
		}
		return nil, fmt.Errorf("parsing address of registry: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("address of registry %q is not http://HOST:PORT or https://HOST:PORT", base.Redacted())
	}
	roots, err := rootsWith(r.CA)
	if err != nil {
		return nil, fmt.Errorf("reading roots for %s: %w", base.Host, err)
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	dial := cfg.dial
	if dial == nil {
		dial = dialer.DialContext
	}
	t := &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     &tls.Config{RootCAs: roots, InsecureSkipVerify: r.Insecure}, //nolint:gosec // it was asked for
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: cfg.Timeout,
		// A connection that was needed once is needed in the next burst.
		MaxIdleConnsPerHost: max(cfg.MaxInFlight, cfg.Threads),
		IdleConnTimeout:     90 * time.Second,
		// The bytes are wanted as they are sent.
		DisableCompression: true,
		ReadBufferSize:     16 << 10,
	}
	return &endpoint{base: base, transport: t, access: newAccess(base, r, t)}, nil
}

// rootsWith returns the machine's roots and those of a PEM; nil, which is the
// machine's, without one.
func rootsWith(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("no certificate in it")
	}
	return roots, nil
}

// call is a request to send.
type call struct {
	method string
	url    *url.URL
	header http.Header // shared with other requests: not written to
	size   int64       // of the body
	// body returns a reader of what is to be sent, from its beginning. Nil: nothing is.
	body   func() io.Reader
	client string        // whose credentials are used
	scope  func() string // that a token has to have
	// head is told the head of an answer that has a body to receive. Nil: nobody is.
	head func(a *Answer) error
}

// locate returns the address of a path ("/v2/...", escaped) with a query.
func (e *endpoint) locate(path, query string) *url.URL {
	u := &url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: e.base.Path + path, RawQuery: query}
	if strings.IndexByte(path, '%') >= 0 {
		if plain, err := url.PathUnescape(u.Path); err == nil {
			u.RawPath, u.Path = u.Path, plain
		}
	}
	return u
}

// do sends a request and returns the head of its answer. A refusal for want of a token
// is answered with one, once; redirects are followed, and credentials are for the
// registry's own address only. The caller closes the body.
func (e *endpoint) do(ctx context.Context, w *watch, c call) (*http.Response, error) {
	renewed := false
	for hops := 0; ; {
		w.touch()
		own := c.url.Host == e.base.Host && c.url.Scheme == e.base.Scheme
		var sent []string
		if own {
			var err error
			if sent, err = e.access.header(ctx, c.client, c.scope); err != nil {
				return nil, authError(ctx, err)
			}
		}
		resp, err := e.transport.RoundTrip(c.request(ctx, w, sent))
		if err != nil {
			return nil, err
		}
		w.touch()
		switch {
		case resp.StatusCode == http.StatusUnauthorized && own && !renewed && e.access.refused(resp, sent, c.client, c.scope):
			renewed = true
			discard(resp)
		case redirects(resp.StatusCode, c.method):
			to, err := resp.Location()
			if err != nil {
				return resp, nil
			}
			discard(resp)
			if hops++; hops > maxRedirects {
				return nil, &Error{CauseStatus, resp.StatusCode, fmt.Errorf("it redirects more than %d times", maxRedirects)}
			}
			if c.url.Scheme == "https" && to.Scheme != "https" {
				return nil, &Error{CauseStatus, resp.StatusCode, errors.New("it redirects from https to http")}
			}
			c.url = to
		default:
			return resp, nil
		}
	}
}

// redirects reports whether an answer of a status is to be followed.
func redirects(status int, method string) bool {
	switch status {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		return method == http.MethodGet || method == http.MethodHead
	}
	return false
}

func (c call) request(ctx context.Context, w *watch, authorization []string) *http.Request {
	r := &http.Request{
		Method: c.method, URL: c.url, Header: c.header, Host: c.url.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if authorization != nil {
		r.Header = make(http.Header, len(c.header)+1)
		for name, value := range c.header {
			r.Header[name] = value
		}
		r.Header["Authorization"] = authorization
	}
	if c.body != nil && c.size > 0 {
		r.ContentLength = c.size
		r.GetBody = func() (io.ReadCloser, error) { return &sending{from: c.body(), watch: w}, nil }
		r.Body = &sending{from: c.body(), watch: w}
	} else if c.body != nil {
		r.Body = http.NoBody
	}
	return r.WithContext(ctx)
}

// sending is a body on its way: that it is taken is progress.
type sending struct {
	from  io.Reader
	watch *watch
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.watch.touch()
	return n, err
}

func (s *sending) Close() error { return nil }

// discard gives up the rest of an answer, and keeps its connection if that is short.
func discard(r *http.Response) {
	_, _ = io.CopyN(io.Discard, r.Body, drained) // what it is does not matter
	r.Body.Close()
}
