package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/remote/registry/transport"
)

// Client sends requests to registries. All methods may be called concurrently.
type Client struct {
	cfg      Config
	lanes    *lanes
	realms   realms
	backoffs *backoffs
	quotas   quotas
	counts   counts

	transports atomic.Pointer[transports]
}

// transports are two because connections that one may make are not the other's.
type transports struct {
	home *http.Transport // to registries
	away *http.Transport // to where they redirect to
}

func newTransports(cfg Config) *transports {
	return &transports{newTransport(cfg, homeDialer(cfg)), newTransport(cfg, awayDialer(cfg))}
}

func (t *transports) closeIdle() {
	t.home.CloseIdleConnections()
	t.away.CloseIdleConnections()
}

// New returns a Client.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, lanes: newLanes(cfg), realms: newRealms(cfg.AuthRealms), backoffs: newBackoffs(cfg.MaxBackoff),
	}
	c.transports.Store(newTransports(cfg))
	return c, nil
}

func newTransport(cfg Config, d dialer) *http.Transport {
	t := transport.New(transport.Options{
		TLS: cfg.TLS, Dial: d.DialContext,
		ConnectTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout,
	})
	t.Proxy = cfg.Proxy // none of the environment's
	return t
}

// Do sends a GET or HEAD. Redirects of a HEAD are returned; those of a GET are
// followed. The answer has whatever status, its Request no credentials and no
// query, and its body must be closed. Challenges in it are written anew. Errors are
// *Error.
//
// While a registry's Retry-After lasts, the answer to the same credentials is made
// here: the status it came with and what is left of it.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.do(req)
	if err != nil {
		err = fail(req.Method, req.URL, err)
		c.counts.failed(err)
		return nil, err
	}
	return resp, nil
}

func (c *Client) do(req *http.Request) (*http.Response, error) {
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	if resp := c.backoffs.answer(req); resp != nil {
		c.counts.throttled.Add(1)
		return resp, nil
	}
	blob := isBlob(req)
	leave, err := c.lanes.enter(req.Context(), hostOf(req.URL), blob)
	if err != nil {
		return nil, err
	}
	c.counts.requests.Add(1)
	if blob {
		c.counts.blobs.Add(1)
	}
	if req.Method == http.MethodHead {
		c.counts.heads.Add(1)
	}
	hop := req.Clone(req.Context())
	hop.Host = "" // whom it is sent to and who it is meant for are one
	if hop.Header.Get("User-Agent") == "" {
		hop.Header.Set("User-Agent", c.cfg.UserAgent)
	}
	resp, err := c.follow(hop, blob)
	if err == nil {
		err = c.accept(req, resp)
	}
	if err != nil {
		leave()
		return nil, err
	}
	if req.Method == http.MethodHead { // nothing follows
		_ = resp.Body.Close()
		resp.Body = http.NoBody
		leave()
		return resp, nil
	}
	resp.Body = &body{
		ReadCloser: resp.Body, method: req.Method, url: resp.Request.URL,
		bytes: &c.counts.bytes, leave: leave, timeout: func() { c.counts.timeouts.Add(1) },
	}
	return resp, nil
}

// checkRequest refuses what is not to be sent.
func checkRequest(r *http.Request) error {
	switch u := r.URL; {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return fmt.Errorf("%w: its method is not GET or HEAD", errRequest)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Opaque != "":
		return fmt.Errorf("%w: its address is not an http one", errRequest)
	case u.User != nil:
		return fmt.Errorf("%w: its address holds credentials", errRequest)
	case r.Body != nil && r.Body != http.NoBody:
		return fmt.Errorf("%w: it has a body", errRequest)
	}
	return nil
}

// isBlob reports whether a request is a download: GET /v2/<name>/blobs/<digest>.
func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && path.Base(path.Dir(r.URL.Path)) == "blobs"
}

// follow sends a request and, if it is a GET, where it is redirected to.
func (c *Client) follow(hop *http.Request, blob bool) (*http.Response, error) {
	by := c.transports.Load()
	through := by.home
	for n := 0; ; n++ {
		resp, err := c.send(through, hop, blob)
		if err != nil {
			return nil, fail(hop.Method, hop.URL, err)
		}
		if hop.Method == http.MethodHead || !isRedirect(resp) {
			resp.Request = bare(hop)
			return resp, nil
		}
		discard(resp)
		to, err := next(hop, resp)
		if err == nil && n == maxRedirects {
			err = &RedirectError{To: plain(to.URL), Why: fmt.Sprintf("it is more than %d in a row", maxRedirects)}
		}
		if err != nil {
			return nil, fail(hop.Method, hop.URL, err)
		}
		c.counts.redirects.Add(1)
		if !sameOrigin(hop.URL, to.URL) {
			through = by.away
		}
		hop = to
		if resp := c.backoffs.answer(hop); resp != nil {
			c.counts.throttled.Add(1)
			return resp, nil
		}
	}
}

// send sends one request to one host.
func (c *Client) send(through http.RoundTripper, r *http.Request, blob bool) (*http.Response, error) {
	start := time.Now()
	if r.Method != http.MethodHead { // which has no body that could stall
		through = transport.Stall(through, c.cfg.Timeout)
	}
	resp, err := through.RoundTrip(r)
	seen := Observation{Host: hostOf(r.URL), Method: r.Method, Blob: blob, Took: time.Since(start)}
	if err != nil {
		seen.Err = fail(r.Method, r.URL, err)
	} else {
		seen.Status = resp.StatusCode
		c.quotas.note(seen.Host, resp.Header)
		if c.backoffs.note(r, resp) {
			c.counts.limited.Add(1)
		}
	}
	if c.cfg.Observe != nil {
		c.cfg.Observe(seen)
	}
	return resp, err
}

// discard ends an answer that is of no use; a short one in a way that keeps the
// connection.
func discard(resp *http.Response) {
	const short = 4 << 10
	if resp.ContentLength >= 0 && resp.ContentLength <= short {
		_, _ = io.CopyN(io.Discard, resp.Body, short)
	}
	_ = resp.Body.Close()
}

// accept checks an answer that is to be handed on. Whatever host gave it, the caller
// takes it for the registry's.
func (c *Client) accept(req *http.Request, resp *http.Response) error {
	if err := c.realms.check(req.URL, resp.Header); err != nil {
		_ = resp.Body.Close()
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		_ = resp.Body.Close()
		return fmt.Errorf("answer has status %d", resp.StatusCode)
	}
	return nil
}

// SetRoots replaces Config.TLS.RootCAs for new connections; nil is the system's.
// Requests under way go on.
func (c *Client) SetRoots(roots *x509.CertPool) {
	cfg := c.cfg
	cfg.TLS = cfg.TLS.Clone()
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{}
	}
	cfg.TLS.RootCAs = roots
	c.transports.Swap(newTransports(cfg)).closeIdle()
}

// Close closes idle connections. Requests under way go on.
func (c *Client) Close() error {
	c.transports.Load().closeIdle()
	return nil
}

// counts are what Stats is made of.
type counts struct {
	requests, heads, blobs, redirects, errors, timeouts, busy, addresses, realms atomic.Int64
	bytes, limited, throttled                                                    atomic.Int64
}

// failed counts the error of a request.
func (c *counts) failed(err error) {
	c.errors.Add(1)
	var address *AddressError
	var realm *RealmError
	e, _ := errors.AsType[*Error](err)
	switch {
	case errors.Is(err, ErrBusy):
		c.busy.Add(1)
	case errors.As(err, &address):
		c.addresses.Add(1)
	case errors.As(err, &realm):
		c.realms.Add(1)
	case errors.Is(err, context.Canceled):
	case e != nil && e.Timeout():
		c.timeouts.Add(1)
	}
}

// Stats returns what was counted.
func (c *Client) Stats() Stats {
	n, l := &c.counts, c.lanes
	return Stats{
		Requests: n.requests.Load(), Heads: n.heads.Load(), Blobs: n.blobs.Load(), Redirects: n.redirects.Load(),
		Errors: n.errors.Load(), Timeouts: n.timeouts.Load(), Busy: n.busy.Load(),
		Addresses: n.addresses.Load(), Realms: n.realms.Load(), Bytes: n.bytes.Load(),
		Limited: n.limited.Load(), Throttled: n.throttled.Load(),
		Workers: cap(l.blobs.slots), WorkersBusy: len(l.blobs.slots), WorkersWait: int(l.blobsWait.Load()),
		ChecksBusy: int(l.checksBusy.Load()), ChecksWait: int(l.checksWait.Load()),
		Hosts: c.quotas.stats(c.backoffs.until()),
	}
}
