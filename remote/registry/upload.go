package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// enoughProgress is how many bytes more a registry must have after a round of
// attempts to be worth another round.
const enoughProgress = 1 << 20

// upload is a blob on its way into a repository. Its session outlives a broken
// connection: the next attempt asks the registry what it has.
type upload struct {
	c    *Client
	e    *endpoint
	to   reference
	desc ocispec.Descriptor
	body *content

	at   *url.URL // of the session; nil if there is none
	home *url.URL // of the registry when the session began
	sent int64    // bytes that the registry says it has
}

func (c *Client) pushBlob(ctx context.Context, to reference, desc ocispec.Descriptor, r io.Reader) error {
	e, err := c.pushHost(ctx, to)
	if err != nil {
		return err
	}
	u := &upload{c: c, e: e, to: to, desc: desc, body: newContent(r)}
	for {
		before := u.sent
		err := c.cfg.Retry.Do(ctx, u.attempt)
		if err == nil || ctx.Err() != nil || blob.IsPermanent(err) || u.sent < before+enoughProgress {
			return err
		}
	}
}

// attempt does what is left to do.
func (u *upload) attempt(ctx context.Context) error {
	if u.at == nil {
		there, err := u.c.existsAt(ctx, u.e, u.to, u.desc)
		switch {
		case err == nil && there:
			return nil
		case err != nil && !blob.IsPermanent(err):
			return err
		}
		// Also after a 403, which may be for reading only: the answer
		// that counts is that to the upload.
	} else if err := u.recall(ctx); err != nil {
		return err
	}
	resumed := u.at != nil
	if !resumed {
		done, err := u.begin(ctx)
		if done || err != nil {
			return err
		}
	}
	err := u.send(ctx)
	if resumed && err != nil && blob.IsPermanent(err) && ctx.Err() == nil && !u.body.spent {
		// The session was not what the registry said: a new one.
		u.at, u.sent = nil, 0
		return resumeError{err}
	}
	return err
}

// resumeError is an error of a resumed upload, which may start anew.
type resumeError struct{ error }

func (e resumeError) Unwrap() error   { return e.error }
func (e resumeError) Temporary() bool { return true }

// begin opens a session; done says that the registry wants none.
func (u *upload) begin(ctx context.Context) (done bool, err error) {
	post := u.request(http.MethodPost, "blobs/uploads/")
	resp, err := u.c.do(ctx, u.e, post, post.apiURL(u.e))
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, stored(resp, post.name, u.desc.Digest)
	case http.StatusAccepted:
	default:
		return false, unexpected(resp, post.name)
	}
	resp.Body.Close()
	u.home = resp.Request.URL
	return false, u.moveTo(resp)
}

// moveTo takes the address where the session goes on. It changes with every
// answer, because registries keep their state in it.
func (u *upload) moveTo(resp *http.Response) error {
	at, err := redirectTarget(resp)
	if err != nil {
		return violation(resp, u.to.name()+"@"+u.desc.Digest.String(), "uploading: %w", err)
	}
	u.at = at
	return nil
}

// recall asks the registry how much of the session it has. A registry that
// does not know the session any more gets a new one.
func (u *upload) recall(ctx context.Context) error {
	get := u.request(http.MethodGet, "")
	resp, err := u.ask(ctx, get, u.at)
	if err != nil {
		return err
	}
	resp.Body.Close()
	n, known := received(resp)
	if resp.StatusCode/100 != 2 || !known || n > u.desc.Size {
		u.at, u.sent = nil, 0
		return nil
	}
	u.sent = n
	if resp.Header.Get("Location") != "" {
		return u.moveTo(resp)
	}
	return nil
}

// received reads a Range header of an upload: 0-<last byte>, where 0-0 is
// taken for nothing.
func received(resp *http.Response) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, false
	}
	if n > 0 {
		n++
	}
	return n, true
}

// send sends what the registry has not, and closes the session. A session at
// its beginning is closed by one request with all of the blob, which every
// registry can do.
func (u *upload) send(ctx context.Context) error {
	piece := u.c.cfg.UploadChunk
	if piece == 0 {
		piece = u.desc.Size
	}
	for u.sent < u.desc.Size && (u.sent > 0 || piece < u.desc.Size) {
		if err := u.patch(ctx, min(piece, u.desc.Size-u.sent)); err != nil {
			return err
		}
	}
	at := *u.at
	q := at.Query()
	q.Set("digest", u.desc.Digest.String())
	at.RawQuery = q.Encode()
	put := u.request(http.MethodPut, "")
	put.header.Set("Content-Type", "application/octet-stream")
	put.size = u.desc.Size - u.sent
	put.body = u.body.piece(u.sent, put.size)
	resp, err := u.ask(ctx, put, &at)
	if err != nil {
		return err
	}
	return stored(resp, put.name, u.desc.Digest)
}

// patch sends n bytes from where the session stands.
func (u *upload) patch(ctx context.Context, n int64) error {
	rq := u.request(http.MethodPatch, "")
	rq.header.Set("Content-Type", "application/octet-stream")
	rq.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.sent, u.sent+n-1))
	rq.size, rq.body = n, u.body.piece(u.sent, n)
	resp, err := u.ask(ctx, rq, u.at)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return unexpected(resp, rq.name)
	}
	resp.Body.Close()
	has, told := received(resp)
	switch {
	case !told:
		has = u.sent + n
	case has <= u.sent || has > u.sent+n:
		return violation(resp, rq.name, "after bytes %d to %d were sent the registry has %d", u.sent, u.sent+n-1, has)
	}
	u.sent = has
	return u.moveTo(resp)
}

func (u *upload) request(method, path string) *request {
	rq := u.c.pushRequest(method, path, u.to, u.desc)
	if method == http.MethodPost {
		rq.body = func() (io.Reader, error) { return http.NoBody, nil }
	}
	return rq
}

// ask sends a request to the session, with credentials only if that is at the
// registry itself.
func (u *upload) ask(ctx context.Context, rq *request, at *url.URL) (*http.Response, error) {
	if sameOrigin(at, u.home) {
		return u.c.do(ctx, u.e, rq, at)
	}
	return u.c.follow(ctx, u.e, rq, at, u.home)
}
