package proxy

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

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
	"github.com/reprise-containers/reprise/remote/blob"
)

var _ fill.Source = (*source)(nil)

// errNoRanges says that an upstream answers a range request with the whole blob.
var errNoRanges = errors.New("the upstream ignores Range and answers the whole blob")

// source reads a blob from its upstream with one caller's credentials.
type source struct {
	h          *Handler
	target     route.Target
	repository string
	digest     digest.Digest
	auth       permit.Secret
	size       int64 // -1: not known yet
	skips      bool  // to throw away what comes before a range, if the upstream ignores that
	ignores    bool  // the primed answer is the whole blob, which was not asked for

	mu      sync.Mutex
	primed  *answer // not used yet
	dropped bool    // whoever would have used it has gone
}

// answer is a blob, or a part of one, on its way from the upstream.
type answer struct {
	body io.ReadCloser
	win  window
	size int64 // of the blob
}

// Open implements fill.Source: bytes [off, off+n), or to the end if n < 0.
func (s *source) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if n < 0 || off+n > s.size {
		n = s.size - off
	}
	a := s.takePrimed(window{off, n})
	if a == nil {
		rng := ""
		if off > 0 || n < s.size {
			rng = wanted{first: off, last: off + n - 1}.header()
		}
		var err error
		if a, err = s.request(ctx, rng); err != nil {
			return nil, err
		}
	}
	if err := s.fits(a, off, n); err != nil {
		if !s.givenBack(a, err) {
			a.body.Close()
		}
		return nil, err
	}
	return a.body, nil
}

// fits makes the body of a the n bytes at off.
func (s *source) fits(a *answer, off, n int64) error {
	switch {
	case a.size != s.size:
		return blob.Permanent(fmt.Errorf("the blob has %d bytes at the upstream and not %d", a.size, s.size))
	case a.win == window{off, n}:
		return nil
	case a.win.off != 0 || a.win.n != s.size:
		return blob.Permanent(fmt.Errorf("the upstream answers bytes %d to %d when asked for %d to %d",
			a.win.off, a.win.off+a.win.n, off, off+n))
	case off == 0:
		a.body = &exact{a.body, n}
		return nil
	case s.skips, off+n == s.size && n > off: // the rest of a fetch that broke: most of the answer is of use
		if _, err := io.CopyN(io.Discard, a.body, off); err != nil {
			return err
		}
		a.body = &exact{a.body, n}
		return nil
	}
	return blob.Permanent(errNoRanges)
}

// request sends a GET for the blob with a Range header, "" for none.
func (s *source) request(ctx context.Context, rng string) (*answer, error) {
	req := newRequest(ctx, http.MethodGet, s.target, blobPath(s.repository, s.digest), s.auth)
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	resp, err := s.h.parts.Upstream.Do(req)
	if err != nil {
		return nil, err
	}
	a, err := parseAnswer(resp, s.target)
	if err != nil {
		resp.Body.Close()
		s.h.denied(ctx, permit.Resource{
			Target: s.target, Repository: s.repository, Kind: KindBlob, Reference: string(s.digest),
		}, s.auth, err)
		return nil, err
	}
	return a, nil
}

// parseAnswer makes sense of an upstream's answer to a GET of a blob. It does
// not close the body if it fails.
func parseAnswer(resp *http.Response, target route.Target) (*answer, error) {
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, newStatusError(resp, target)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, blob.Permanent(fmt.Errorf("the upstream encodes the blob as %.30q although that was not asked for", enc))
	}
	a := &answer{win: window{0, resp.ContentLength}, size: resp.ContentLength}
	if resp.StatusCode == http.StatusPartialContent {
		var ok bool
		if a.win, a.size, ok = parseContentRange(resp.Header.Get("Content-Range")); !ok {
			return nil, blob.Permanent(fmt.Errorf("Content-Range %.100q is not understood", resp.Header.Get("Content-Range")))
		}
		if resp.ContentLength >= 0 && resp.ContentLength != a.win.n {
			return nil, blob.Permanent(fmt.Errorf("the body of a range of %d bytes has %d", a.win.n, resp.ContentLength))
		}
	}
	if a.size < 0 {
		return nil, blob.Permanent(errors.New("the upstream does not say how large the blob is"))
	}
	a.body = &exact{resp.Body, a.win.n}
	return a, nil
}

// newStatusError makes the error of an answer, of whose body it reads some.
func newStatusError(resp *http.Response, target route.Target) *statusError {
	e := &statusError{status: resp.StatusCode, header: make(http.Header)}
	if resp.Request != nil && resp.Request.URL.Host != target.Host {
		e.host = resp.Request.URL.Host
		return e
	}
	for _, name := range passedOn {
		if v := resp.Header[name]; v != nil {
			e.header[name] = v
		}
	}
	e.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxErrorBody+1))
	return e
}

// prime sends the request that a client's own asks for, to learn the size of the
// blob, and keeps the answer for the Open that follows. The fetch is not the
// client's alone, so it does not end with it.
func (s *source) prime(ctx context.Context, rng string) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a, err := s.request(ctx, rng)
	if err != nil {
		cancel()
		return err
	}
	a.body = &canceling{a.body, cancel}
	s.size = a.size
	s.mu.Lock()
	s.primed, s.ignores = a, rng != "" && a.win == window{0, a.size}
	s.mu.Unlock()
	return nil
}

// takePrimed returns the primed answer if it is of win, or the whole blob in place of
// a range. Any other is closed: it would keep a worker from the request that is sent
// instead.
func (s *source) takePrimed(win window) *answer {
	s.mu.Lock()
	a := s.primed
	s.primed = nil
	s.mu.Unlock()
	if a == nil || a.win == win || s.ignores {
		return a
	}
	a.body.Close()
	return nil
}

// givenBack keeps an answer for the request for the whole blob that follows err.
func (s *source) givenBack(a *answer, err error) bool {
	if !s.ignores || !errors.Is(err, errNoRanges) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.primed != nil || s.dropped {
		return false
	}
	s.primed = a
	return true
}

// dropPrimed closes the primed answer if nothing wanted it, and whatever comes after.
func (s *source) dropPrimed() {
	s.mu.Lock()
	s.dropped = true
	s.mu.Unlock()
	s.closePrimed()
}

// closePrimed closes the primed answer if nothing wanted it yet.
func (s *source) closePrimed() {
	s.mu.Lock()
	a := s.primed
	s.primed = nil
	s.mu.Unlock()
	if a != nil {
		a.body.Close()
	}
}

// exact ends after n bytes and takes an earlier end for an error.
type exact struct {
	io.ReadCloser
	n int64
}

func (e *exact) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.n {
		p = p[:e.n]
	}
	n, err := e.ReadCloser.Read(p)
	e.n -= int64(n)
	switch {
	case err == io.EOF && e.n > 0: //nolint:errorlint // as io.Reader has it
		err = io.ErrUnexpectedEOF
	case e.n == 0:
		err = io.EOF // whatever comes after
	}
	return n, err
}

// canceling frees the context of a request with its body.
type canceling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *canceling) Close() error {
	err := c.ReadCloser.Close()
	c.cancel()
	return err
}

// sourceOf returns where a blob comes from by a caller's credentials.
func (x *exchange) sourceOf(desc ocispec.Descriptor) fill.Source {
	return x.shared(&source{
		h: x.h, target: x.target, repository: x.res.repository, digest: desc.Digest, auth: x.auth, size: desc.Size,
	})
}

// shared returns a source that asks for a blob, whose size src knows, where it is
// shared before it asks the upstream.
func (x *exchange) shared(src *source) fill.Source {
	if x.h.parts.Shared == nil {
		return src
	}
	return x.h.parts.Shared.Source(x.origin(), ocispec.Descriptor{Digest: src.digest, Size: src.size}, src)
}

func blobPath(repository string, d digest.Digest) string {
	return "/v2/" + repository + "/blobs/" + string(d)
}

// newRequest makes a request to an upstream with the caller's credentials. path
// is made of what parsePath let through.
func newRequest(ctx context.Context, method string, target route.Target, path string, auth permit.Secret) *http.Request {
	req := &http.Request{
		Method: method, URL: &url.URL{Scheme: target.Scheme, Host: target.Host, Path: path}, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept-Encoding": {"identity"}},
	}
	if auth != "" {
		req.Header["Authorization"] = []string{string(auth)}
	}
	return req.WithContext(ctx)
}

func etagOf(d digest.Digest) string { return strconv.Quote(string(d)) }
