package load

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// performer does what items say.
type performer struct {
	client    *Client
	unchecked bool
	maker     *content.Maker
	checks    *checks
	uploads   uploads
}

// perform does what it says. What is wrong with the answer is an *Error.
func (p *performer) perform(ctx context.Context, x *exchange, it *Item, t *turn) (Answer, error) {
	switch it.Op {
	case Get:
		return p.get(ctx, x, it)
	case Head:
		a, err := x.receive(ctx, call{method: http.MethodHead, url: x.at(it.Path, it.Query), header: accepts(it.Kind)}, nil)
		if err == nil && !p.unchecked && it.Digest != "" && a.Digest != "" && differ(a.Digest, it.Digest) {
			err = &Error{CauseMismatch, a.Status, fmt.Errorf("it is said to be %s, not %s", a.Digest, it.Digest)}
		}
		return a, err
	case Push:
		if it.Kind == trace.Manifest {
			return p.pushManifest(ctx, x, it)
		}
		return p.pushBlob(ctx, x, it)
	case Start, Append, Finish:
		return p.part(ctx, x, it, t)
	}
	return Answer{}, &Error{Cause: CauseStatus, Err: fmt.Errorf("there is no operation %q", it.Op)}
}

// differ reports whether two digests are of different contents; those of different
// algorithms may be of the same.
func differ(a, b digest.Digest) bool {
	algorithm, _, _ := strings.Cut(string(a), ":")
	return a != b && strings.HasPrefix(string(b), algorithm+":")
}

func (p *performer) get(ctx context.Context, x *exchange, it *Item) (Answer, error) {
	c := call{method: http.MethodGet, url: x.at(it.Path, it.Query), header: accepts(it.Kind)}
	if it.Len > 0 {
		c.header = http.Header{
			"User-Agent": userAgent, "Accept": c.header["Accept"],
			"Range": {"bytes=" + strconv.FormatInt(it.Off, 10) + "-" + strconv.FormatInt(it.Off+it.Len-1, 10)},
		}
	}
	if p.unchecked || it.Digest == "" {
		a, err := x.receive(ctx, c, nil)
		return a, rangeError(err, a, it)
	}
	v := &check{of: p.checks, it: it}
	defer v.close()
	c.head = v.begin
	a, err := x.receive(ctx, c, v.write)
	if err = rangeError(err, a, it); err != nil {
		return a, err
	}
	return a, v.end(ctx, a)
}

// rangeError returns err, or what is wrong with the answer to a request for a range.
// That may be the whole, and it may end where the whole does.
func rangeError(err error, a Answer, it *Item) error {
	switch {
	case err != nil || it.Len == 0 && a.Status != http.StatusPartialContent:
		return err
	case a.Status != http.StatusPartialContent:
		return nil
	}
	got := a.Header.Get("Content-Range")
	span, _, _ := strings.Cut(strings.TrimPrefix(got, "bytes "), "/")
	want := it.Len
	if size := wholeOf(&a); size >= 0 {
		want = min(want, size-it.Off)
	}
	if span != fmt.Sprintf("%d-%d", it.Off, it.Off+want-1) || a.Bytes != want {
		return &Error{CauseMismatch, a.Status, fmt.Errorf("%d bytes of %q are not %d from %d", a.Bytes, got, it.Len, it.Off)}
	}
	return nil
}

// hashing is a body that is hashed as it is sent. It is used anew when it is sent
// anew, and the transport may still be reading the body of the attempt before.
type hashing struct {
	mu   sync.Mutex
	from io.Reader
	hash hash.Hash
	n    int64
	err  error
}

func (h *hashing) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, h.err
	}
	n, err := h.from.Read(p)
	h.hash.Write(p[:n])
	h.n += int64(n)
	return n, err
}

var errUnread = errors.New("the registry did not read the whole body")

// sum returns the digest of a body of size bytes that was sent.
func (h *hashing) sum(size int64) (digest.Digest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n != size {
		return "", errUnread
	}
	return digest.NewDigest(digest.SHA256, h.hash), nil
}

// pushBlob uploads a blob as docker does: its digest is found as it is sent.
func (p *performer) pushBlob(ctx context.Context, x *exchange, it *Item) (Answer, error) {
	size := max(it.Size, 0)
	to, a, err := x.start(ctx, trace.Parse(it.Path).Repository, it.Query)
	if err != nil || to == nil {
		return a, err
	}
	sent := &hashing{hash: sha256.New()}
	if size > 0 {
		to, a, err = x.patch(ctx, to, 0, size, func() io.Reader {
			sent = &hashing{from: p.maker.Body(it.URI, size), hash: sha256.New()}
			return sent
		})
		if err != nil {
			return a, err
		}
	}
	d, err := sent.sum(size)
	if err != nil {
		return a, &Error{CauseStatus, a.Status, err}
	}
	a, err = x.put(ctx, withDigest(to, d), "", 0, empty)
	if err == nil {
		a.Bytes = size
	}
	return a, err
}

func (p *performer) pushManifest(ctx context.Context, x *exchange, it *Item) (Answer, error) {
	body := index(it.Size, p.maker.Body(it.URI, max(it.Size, 0)))
	return x.put(ctx, x.at(it.Path, it.Query), indexType, int64(len(body)), func() io.Reader { return bytesReader(body) })
}
