package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// piece is how much of a body is read at a time.
const piece = 64 << 10

// excerpt is how many bytes of the body of a refusal are told.
const excerpt = 256

// Client speaks to registries: it asks for objects and pushes them, with what their
// registry wants for it. It is made by NewClient and used in parallel.
type Client struct {
	endpoints []*endpoint
	timeout   time.Duration
	buffers   sync.Pool // of *[piece]byte
}

// NewClient returns a client of the registries of cfg. Of the other settings it uses
// Timeout, and Threads and MaxInFlight for how many connections it keeps.
func NewClient(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Registries) == 0 {
		return nil, errors.New("there is no registry to send to")
	}
	c := &Client{timeout: cfg.Timeout}
	c.buffers.New = func() any { return new([piece]byte) }
	for _, r := range cfg.Registries {
		e, err := newEndpoint(r, cfg)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, e)
	}
	return c, nil
}

// Close closes the connections that are idle.
func (c *Client) Close() {
	for _, e := range c.endpoints {
		e.transport.CloseIdleConnections()
	}
}

// Tokens returns how many tokens were asked for, and how many of those because a
// registry no longer took one that should have been good.
func (c *Client) Tokens() (asked, renewed uint64) {
	for _, e := range c.endpoints {
		asked += e.access.asked.Load()
		renewed += e.access.renewed.Load()
	}
	return asked, renewed
}

// exchange is what is said about one object or item: one request and its answer, or
// those of an upload.
type exchange struct {
	c      *Client
	e      *endpoint
	w      *watch
	client string
	scope  func() string // that a token has to have
	began  time.Time
	first  time.Duration // from began to the head of the last answer
	last   time.Duration // from began to the end of the last answer
}

func (x *exchange) at(path, query string) *url.URL { return x.e.locate(path, query) }

func (x *exchange) do(ctx context.Context, c call) (*http.Response, Answer, error) {
	c.client, c.scope = x.client, x.scope
	r, err := x.e.do(ctx, x.w, c)
	x.first = time.Since(x.began)
	x.last = x.first
	if err != nil {
		a := Answer{Size: -1}
		if e, ok := errors.AsType[*Error](err); ok {
			a.Status = e.Status
		}
		return nil, a, err
	}
	return r, Answer{
		Status: r.StatusCode, Size: r.ContentLength, Header: r.Header,
		Digest: digest.Digest(r.Header.Get("Docker-Content-Digest")),
	}, nil
}

// refusal returns the error of an answer that is not a success, and what the registry
// says of it.
func (x *exchange) refusal(r *http.Response) error {
	defer r.Body.Close()
	p, _ := io.ReadAll(io.LimitReader(r.Body, excerpt)) // what is there of it
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(p), "?")), " ")
	if text == "" {
		text = http.StatusText(r.StatusCode)
	}
	return &Error{CauseStatus, r.StatusCode, errors.New(text)}
}

// receive sends a request without a body and gives the body of its answer to take, or
// to nobody. The answer has a status of 2xx if there is no error.
func (x *exchange) receive(ctx context.Context, c call, take func(p []byte) error) (Answer, error) {
	r, a, err := x.do(ctx, c)
	if err != nil {
		return a, err
	}
	if a.Status/100 != 2 {
		return a, x.refusal(r)
	}
	defer r.Body.Close()
	defer func() { x.last = time.Since(x.began) }()
	if c.head != nil {
		if err := c.head(&a); err != nil {
			return a, err
		}
	}
	buf := x.c.buffers.Get().(*[piece]byte)
	defer x.c.buffers.Put(buf)
	for {
		n, err := r.Body.Read(buf[:])
		a.Bytes += int64(n)
		if n > 0 {
			x.w.touch()
			if take != nil {
				if err := take(buf[:n]); err != nil {
					return a, err
				}
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // as Read returns it
			return a, nil
		case err != nil:
			return a, fmt.Errorf("reading the body after %d bytes: %w", a.Bytes, err)
		}
	}
}

// send sends a request whose answer has no body that matters, and returns where it
// says to go on, nil if it does not. The answer has a status of 2xx if there is no
// error.
func (x *exchange) send(ctx context.Context, c call) (*url.URL, Answer, error) {
	r, a, err := x.do(ctx, c)
	if err != nil {
		return nil, a, err
	}
	if a.Status/100 != 2 {
		return nil, a, x.refusal(r)
	}
	discard(r)
	a.Bytes = c.size
	to, err := r.Location()
	if err != nil {
		return nil, a, nil
	}
	return to, a, nil
}

// start begins an upload and returns where it goes on, nil if the blob was mounted.
func (x *exchange) start(ctx context.Context, repository, query string) (*url.URL, Answer, error) {
	to, a, err := x.send(ctx, call{
		method: http.MethodPost, url: x.at("/v2/"+repository+"/blobs/uploads/", query), header: plainHeader, body: empty,
	})
	switch {
	case err != nil || a.Status == http.StatusCreated:
		return nil, a, err
	case to == nil:
		return nil, a, &Error{CauseStatus, a.Status, errNoLocation}
	}
	return to, a, nil
}

func empty() io.Reader { return http.NoBody }

// put ends an upload, or puts a manifest.
func (x *exchange) put(ctx context.Context, to *url.URL, mediaType string, size int64, body func() io.Reader) (Answer, error) {
	h := http.Header{"User-Agent": userAgent}
	if size > 0 {
		h["Content-Type"] = []string{mediaType}
	}
	_, a, err := x.send(ctx, call{method: http.MethodPut, url: to, header: h, size: size, body: body})
	return a, err
}

// patch adds to an upload at an offset and returns where it goes on.
func (x *exchange) patch(ctx context.Context, to *url.URL, off, size int64, body func() io.Reader) (*url.URL, Answer, error) {
	h := http.Header{"User-Agent": userAgent, "Content-Type": {"application/octet-stream"}}
	if size > 0 {
		h["Content-Range"] = []string{strconv.FormatInt(off, 10) + "-" + strconv.FormatInt(off+size-1, 10)}
	}
	next, a, err := x.send(ctx, call{method: http.MethodPatch, url: to, header: h, size: size, body: body})
	if next == nil { // the specification wants one, and some leave it as it is
		next = to
	}
	return next, a, err
}
