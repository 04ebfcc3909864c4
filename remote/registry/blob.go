package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// remoteBlob is a blob in a registry.
type remoteBlob struct {
	c    *Client
	ref  reference
	desc ocispec.Descriptor

	name, path, scope string // of each request
	rejected          *rejections
}

// Size implements blob.ReaderAt.
func (b *remoteBlob) Size() int64 { return b.desc.Size }

// Descriptor implements blob.Blob.
func (b *remoteBlob) Descriptor() ocispec.Descriptor { return b.desc }

// Reject implements blob.Rejecter. What a redirect led to counts as the host
// that redirected, which is asked anew where to go.
func (b *remoteBlob) Reject(origin string) {
	b.rejected.add(origin)
	key := targetKey{origin, b.ref.repo, b.desc.Digest}
	if t := b.c.targets.lookup(key); t != nil {
		b.c.targets.drop(key, t)
	}
}

// order puts hosts that failed lately last, and after them those that served
// wrong bytes of this blob.
func (b *remoteBlob) order(all []*endpoint) []*endpoint {
	return b.rejected.order(b.c.health.order(all))
}

// ReadAt implements blob.ReaderAt: one range request, at the next host the rest
// of it if one fails. It tells the blob.Origins of ctx who served what.
func (b *remoteBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	p, end := blob.Clip(b, p, off)
	if len(p) == 0 {
		return 0, end
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	done := 0
	origins := blob.OriginsOf(ctx)
	err := b.c.eachOf(ctx, b.ref, docker.HostCapabilityPull, b.order, func(e *endpoint) error {
		n, err := b.readFrom(ctx, e, p[done:], off+int64(done))
		if err != nil && !blob.IsPermanent(err) {
			origins.Failed()
		}
		done += n
		return err
	})
	if err != nil {
		return done, err
	}
	return done, end
}

// readFrom reads from one host: straight from where it redirected to before, or
// through its API.
func (b *remoteBlob) readFrom(ctx context.Context, e *endpoint, p []byte, off int64) (int, error) {
	rq := b.request(len(p), off)
	key := targetKey{e.origin, b.ref.repo, b.desc.Digest}
	if t := b.c.targets.lookup(key); t != nil {
		resp, err := b.c.follow(ctx, e, rq, t.url, t.from)
		if err == nil && !stale(resp.StatusCode) {
			n, err := b.receive(ctx, resp, e.origin, p, off)
			if err != nil {
				b.c.targets.drop(key, t)
			}
			return n, err
		}
		b.c.targets.drop(key, t)
		switch {
		case err == nil:
			resp.Body.Close()
		case ctx.Err() != nil:
			return 0, err
		}
	}
	resp, err := b.c.fetch(ctx, e, rq)
	if err != nil {
		return 0, err
	}
	from := resp.Request.URL
	n, err := b.receive(ctx, resp, e.origin, p, off)
	if home := rq.apiURL(e); err == nil && from.Host != home.Host {
		b.c.targets.put(key, from, home)
	}
	return n, err
}

// stale reports whether a status of a remembered redirect target may mean that
// it expired, moved or went: the registry knows the present place. One that is
// merely busy is not asked for a second time at once.
func stale(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	}
	return status >= 300 && status < 500
}

func (b *remoteBlob) request(n int, off int64) *request {
	r := append(make([]byte, 0, 48), "bytes="...)
	r = strconv.AppendInt(r, off, 10)
	r = append(r, '-')
	r = strconv.AppendInt(r, off+int64(n)-1, 10)
	return &request{
		method: http.MethodGet,
		path:   b.path,
		header: http.Header{
			"Range":           {string(r)},
			"Accept":          {"*/*"},
			"Accept-Encoding": {"identity"},
		},
		ref: b.ref, name: b.name, scope: b.scope,
	}
}

// receive checks a response and reads p from it. It closes the body, without
// reading what is left of it.
func (b *remoteBlob) receive(ctx context.Context, resp *http.Response, origin string, p []byte, off int64) (int, error) {
	if resp.StatusCode/100 != 2 {
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			resp.Body.Close()
			return 0, violation(resp, b.name, "there is no range of %d bytes at %d: the blob should have %d bytes, but the registry says %q",
				len(p), off, b.desc.Size, resp.Header.Get("Content-Range"))
		}
		return 0, statusError(resp, b.name)
	}
	defer resp.Body.Close()
	if err := b.checkRange(resp, len(p), off); err != nil {
		return 0, err
	}
	served := func(at, n int) { blob.OriginsOf(ctx).Served(off+int64(at), n, origin) }
	open := resp.StatusCode == http.StatusPartialContent && resp.ContentLength < 0
	report := served
	if open {
		report = func(int, int) {} // nothing before it is known to be taken
	}
	n, err := readPieces(resp.Body, p, report)
	if open && err == nil {
		// Only now is it known that the body was not longer, and the
		// connection can be used again. If it breaks here, nothing is lost.
		// Of a longer one nothing is taken: another host fills p anew.
		var one [1]byte
		if extra, _ := resp.Body.Read(one[:]); extra > 0 {
			return 0, violation(resp, b.name, "body has more than the %d bytes at %d asked for", len(p), off)
		}
	}
	if open {
		served(0, n)
	}
	if err != nil {
		return n, requestError(ctx, resp.Request.URL.Host, b.name,
			fmt.Errorf("body ended after %d of %d bytes at %d: %w", n, len(p), off, err))
	}
	return n, nil
}

// pieceSize is how many bytes of a read are reported as served at once.
const pieceSize = 64 << 10

// readPieces fills p from r and reports what it has read, in pieces. An end of
// r before that is io.ErrUnexpectedEOF.
func readPieces(r io.Reader, p []byte, served func(at, n int)) (int, error) {
	done := 0
	for done < len(p) {
		n, err := io.ReadFull(r, p[done:min(done+pieceSize, len(p))])
		served(done, n)
		done += n
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
