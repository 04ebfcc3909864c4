// Package swarm is many clients of a registry at one time, each of which
// compares every byte it gets with what it should be.
package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// Target is a registry as a client sees it.
type Target struct {
	// Base is scheme and host:port.
	Base string
	// Host is the Host header, "" for that of Base.
	Host string
	// Query is appended to every request: "ns=docker.io".
	Query string
	// Authorization is sent along, unless empty.
	Authorization string
	// Client is nil for connections that nobody shares.
	Client *http.Client
}

// ErrWrong is a byte that is not what it should be, or a digest, a length.
var ErrWrong = errors.New("wrong content")

// StatusError is an answer that is none of the expected.
type StatusError struct {
	Status int
	Header http.Header
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %.300s", e.Status, e.Body) }

// Do sends a request for a path below /v2/ and returns the answer as it is.
func (t Target) Do(ctx context.Context, method, path string, header map[string]string) (*http.Response, error) {
	url := t.Base + "/v2/" + path
	if t.Query != "" {
		url += "?" + t.Query
	}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = t.Host
	if t.Authorization != "" {
		req.Header.Set("Authorization", t.Authorization)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	client := t.Client
	if client == nil {
		client = Lone()
		req.Close = true
	}
	return client.Do(req)
}

// Lone returns a client that follows no redirect and shares no connection.
func Lone() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableCompression: true, MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Get returns status and body of a GET; a body that ends early is an error.
func (t Target) Get(ctx context.Context, path string, header map[string]string) (*http.Response, []byte, error) {
	resp, err := t.Do(ctx, http.MethodGet, path, header)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// Pull is the read of a blob, or a part of it.
type Pull struct {
	Repo   string
	Digest digest.Digest
	// Want is the whole blob, or Blob is, whose bytes are then computed.
	Want []byte
	Blob *origin.Content
	// Off and N are what is read; N 0 is all from Off on, without a Range
	// header if Off is 0.
	Off, N int64
	// Retry goes on behind what has come when a connection breaks or is
	// refused, as containerd does, until the context ends.
	Retry bool
	// First is called at the first byte.
	First func()
	// Rate, if not 0, is the pace of the reader in bytes a second.
	Rate int64
}

// Result says how a pull went.
type Result struct {
	// First and Done are when the first and the last byte had come.
	First, Done time.Time
	// Bytes is how many right ones came, Tries how many requests it took.
	Bytes int64
	Tries int
	// Broken says that an answer with wrong bytes was broken off before its
	// end, so that nobody can take it for the blob.
	Broken bool
}

// retryPause is between two tries of a pull.
const retryPause = 50 * time.Millisecond

// Pull reads as p says. Wrong bytes are an error that is ErrWrong and are
// never retried.
func (t Target) Pull(ctx context.Context, p Pull) (Result, error) {
	end := p.Off + p.N
	if p.N == 0 {
		end = p.size()
	}
	var r Result
	for {
		r.Tries++
		err := t.try(ctx, p, p.Off+r.Bytes, end, &r)
		switch {
		case err == nil && p.Off+r.Bytes == end:
			r.Done = time.Now()
			return r, nil
		case err == nil:
			err = fmt.Errorf("%d of %d bytes: %w", r.Bytes, end-p.Off, ErrWrong)
		}
		if !p.Retry || errors.Is(err, ErrWrong) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, errors.Join(ctx.Err(), err)
		case <-time.After(retryPause):
		}
	}
}

// try reads [off, end) as far as it comes.
func (t Target) try(ctx context.Context, p Pull, off, end int64, r *Result) error {
	header := map[string]string{}
	want := http.StatusOK
	if off > 0 || p.N != 0 {
		header["Range"] = fmt.Sprintf("bytes=%d-%d", off, end-1)
		want = http.StatusPartialContent
	}
	resp, err := t.Do(ctx, http.MethodGet, p.Repo+"/blobs/"+p.Digest.String(), header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return &StatusError{resp.StatusCode, resp.Header, string(b)}
	}
	if resp.ContentLength != end-off {
		// Whoever lies about the size is found out at the end, at the latest.
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		return fmt.Errorf("Content-Length %d for %d bytes: %w", resp.ContentLength, end-off, ErrWrong)
	}
	if cr := fmt.Sprintf("bytes %d-%d/%d", off, end-1, p.size()); want == http.StatusPartialContent && resp.Header.Get("Content-Range") != cr {
		return fmt.Errorf("Content-Range %q for %q: %w", resp.Header.Get("Content-Range"), cr, ErrWrong)
	}
	return p.compare(ctx, resp.Body, off, end, r)
}

// compare reads a body and holds it against the blob.
func (p Pull) compare(ctx context.Context, body io.Reader, off, end int64, r *Result) error {
	begun, from := time.Now(), off
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 && r.Bytes == 0 {
			r.First = time.Now()
			if p.First != nil {
				p.First()
			}
		}
		if off+int64(n) > end || !p.right(buf[:n], off) {
			r.Broken = err != nil && err != io.EOF || drain(body) != nil
			return fmt.Errorf("bytes %d to %d of %s: %w", off, off+int64(n), p.Digest, ErrWrong)
		}
		off += int64(n)
		r.Bytes += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if p.Rate > 0 {
			wait := time.Until(begun.Add(time.Duration(float64(off-from) / float64(p.Rate) * float64(time.Second))))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
	}
}

// drain reads to the end and returns an error if that is not the announced one.
func drain(body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}

func (p Pull) size() int64 {
	if p.Blob != nil {
		return p.Blob.Size
	}
	return int64(len(p.Want))
}

// right reports whether got are the bytes at off.
func (p Pull) right(got []byte, off int64) bool {
	if p.Blob == nil {
		return bytes.Equal(got, p.Want[off:off+int64(len(got))])
	}
	want := make([]byte, len(got))
	p.Blob.ReadAt(want, off) //nolint:errcheck // what is missing is not equal
	return bytes.Equal(got, want)
}

// Run runs n clients that begin together, and returns their first error.
func Run(ctx context.Context, n int, client func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	begin := make(chan struct{})
	for i := range n {
		g.Go(func() error {
			<-begin
			if err := client(ctx, i); err != nil {
				return fmt.Errorf("client %d: %w", i, err)
			}
			return nil
		})
	}
	close(begin)
	return g.Wait()
}
