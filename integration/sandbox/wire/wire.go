// Package wire stands between a client and a real registry: it counts the
// requests and the bytes that cross it and breaks them by rule. It also asks
// for credentials and redirects blob reads the way hosted registries do.
package wire

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"
	"time"
)

// Fault is what happens to one request. The zero Fault passes it on.
type Fault struct {
	// Delay is waited before the request is passed on.
	Delay time.Duration
	// Hang keeps the request unanswered until Release or its end.
	Hang bool
	// Status, if not 0, is the answer instead of the registry's.
	Status int
	// Header is added to the answer.
	Header http.Header
	// CutAfter, if not 0, ends the connection after so many body bytes.
	CutAfter int64
	// FlipAt, if not 0, inverts the body byte with this index.
	FlipAt int64
	// IgnoreRange hides the Range header from the registry.
	IgnoreRange bool
}

// Rule decides what happens to a request.
type Rule func(*http.Request) Fault

// Proxy is an http.Handler and its listener. Methods may be called
// concurrently.
type Proxy struct {
	// Address is host:port of the listener.
	Address string

	server *http.Server
	next   *httputil.ReverseProxy
	auth   authorizer

	mu      sync.Mutex
	rule    Rule
	release chan struct{}
	stats   Stats
	flying  int
}

// Listen starts a proxy on a loopback port in front of the registry at
// host:port backend. Close stops it.
func Listen(backend string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for registry clients: %w", err)
	}
	return Serve(l, backend), nil
}

// Serve is Listen with a listener of the caller's, which Close closes.
func Serve(l net.Listener, backend string) *Proxy {
	p := &Proxy{Address: l.Addr().String(), release: make(chan struct{})}
	p.stats.Blobs = map[string]BlobStats{}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	p.next = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: backend})
			r.Out.Header.Del("Authorization")
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	p.server = &http.Server{Handler: p, ErrorLog: quiet()}
	go p.server.Serve(l) //nolint:errcheck // ends with Close
	return p
}

// Close ends the listener and all connections, hanging ones too.
func (p *Proxy) Close() error { return p.server.Close() }

// SetRule replaces the rule; nil passes everything.
func (p *Proxy) SetRule(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = r
}

// Release lets the requests that hang go on and stops hanging by rule.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = nil
	close(p.release)
	p.release = make(chan struct{})
}

var blobPath = regexp.MustCompile(`/blobs/(sha256:[0-9a-f]{64})$`)

// Blob returns the digest a request reads, "" if it reads no blob.
func Blob(r *http.Request) string {
	if m := blobPath.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodGet {
		return m[1]
	}
	return ""
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	rule, release := p.rule, p.release
	p.mu.Unlock()
	var f Fault
	if rule != nil {
		f = rule(r)
	}
	p.begin(r)
	c := &counter{ResponseWriter: w, fault: f}
	defer func() { p.end(r, c) }()
	if !f.pause(r.Context(), release) {
		return
	}
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	if f.Status != 0 {
		http.Error(c, http.StatusText(f.Status), f.Status)
		return
	}
	if p.auth != nil && !p.auth(c, r) {
		return
	}
	if f.IgnoreRange {
		r.Header.Del("Range")
	}
	p.next.ServeHTTP(c, r)
}

// pause waits as long as the fault says and reports whether to go on.
func (f Fault) pause(ctx context.Context, release <-chan struct{}) bool {
	delay := time.After(f.Delay)
	if f.Hang {
		delay = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-release:
	case <-delay:
	}
	return true
}
