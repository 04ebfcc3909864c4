package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

var (
	// ErrNothing says that a peer has nothing of a blob.
	ErrNothing = errors.New("the peer has nothing of the blob")
	// ErrNotThere says that a peer does not have the byte that was asked for.
	ErrNotThere = errors.New("the peer does not have this part of the blob")
	// ErrStalled says that nothing came of a peer for too long.
	ErrStalled = errors.New("the peer sends nothing")
)

// NotThereError is an ErrNotThere of who has some of what follows.
type NotThereError struct {
	// Next is where that begins, in bytes; 0: the peer has nothing of it that is worth
	// to be asked for.
	Next int64
}

// Error implements error.
func (e *NotThereError) Error() string { return ErrNotThere.Error() }

// Is implements what errors.Is looks for.
func (e *NotThereError) Is(target error) bool { return target == ErrNotThere } //nolint:errorlint // the interface has it so

// Request is what is asked of a peer.
type Request struct {
	Origin   string // whose word counts for bytes that are not verified
	Digest   digest.Digest
	Off, End int64 // bytes [Off, End) of the blob; End -1: to its end
}

const (
	dialFor = time.Second // within a cluster
	headFor = 3 * time.Second
	// keepFor is how long connections are kept that are not used.
	keepFor = time.Minute
	perPeer = 64 // connections that are kept
)

// Client asks peers. Its methods may be called in parallel.
type Client struct {
	http  http.Client
	stall time.Duration
}

// NewClient returns a client that gives a peer up of whom nothing came for stall.
func NewClient(i *Identity, stall time.Duration) *Client {
	return &Client{stall: stall, http: http.Client{Transport: &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialFor}).DialContext,
		TLSClientConfig: i.client(), TLSHandshakeTimeout: headFor, ResponseHeaderTimeout: headFor,
		IdleConnTimeout: keepFor, MaxIdleConnsPerHost: perPeer, DisableCompression: true,
		// HTTP/1.1: a connection for each stream needs no window in common.
		Protocols: http1(), WriteBufferSize: 4 << 10, ReadBufferSize: 256 << 10,
	}}}
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is what a peer sends. It ends with io.EOF where the peer has no more, which
// may be before what was asked for.
type Answer struct {
	Size int64 // of the blob, in bytes

	body  io.ReadCloser
	watch *stall.Watch
}

// Open asks the peer at host:port. Errors wrap ErrNothing, ErrNotThere, or say that the
// peer was not reached.
func (c *Client) Open(ctx context.Context, replica string, r Request) (*Answer, error) {
	w := stall.New(ctx, c.stall)
	a, err := c.open(w, replica, r)
	if err != nil {
		w.End()
		return nil, fmt.Errorf("asking replica %s for %s: %w", replica, r.Digest, err)
	}
	return a, nil
}

func (c *Client) open(w *stall.Watch, replica string, r Request) (*Answer, error) {
	u := url.URL{Scheme: "https", Host: replica, Path: blobPath + string(r.Digest), RawQuery: url.Values{
		"origin": {r.Origin}, "off": {strconv.FormatInt(r.Off, 10)}, "end": {strconv.FormatInt(r.End, 10)},
	}.Encode()}
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	size, err := answered(resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &Answer{Size: size, body: resp.Body, watch: w}, nil
}

// answered makes sense of the head of an answer.
func answered(resp *http.Response) (size int64, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return 0, ErrNothing
	case http.StatusRequestedRangeNotSatisfiable:
		next, _ := strconv.ParseInt(resp.Header.Get(nextHeader), 10, 64) // without it 0
		return 0, &NotThereError{Next: next}
	default:
		return 0, fmt.Errorf("it answers %s", resp.Status)
	}
	size, err = strconv.ParseInt(resp.Header.Get(sizeHeader), 10, 64)
	if err != nil || size <= 0 {
		return 0, fmt.Errorf("%s %.40q is not a size", sizeHeader, resp.Header.Get(sizeHeader))
	}
	return size, nil
}

// Read implements io.Reader.
func (a *Answer) Read(p []byte) (int, error) {
	a.watch.Start()
	n, err := a.body.Read(p)
	a.watch.Stop()
	if _, ok := errors.AsType[*stall.Error](a.watch.Explain(err)); ok {
		err = ErrStalled
	}
	return n, err
}

// Close ends the answer.
func (a *Answer) Close() error {
	a.watch.End()
	return a.body.Close()
}
