package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxBuffered is the size in bytes up to which Fetch reads content whole, so
// that a connection that breaks is repaired before the caller sees a byte.
const maxBuffered = MaxManifestSize

// Fetch returns the content that desc describes: a manifest, a config or a
// whole blob. Reads of wrong content, too much or too little of it, end with an
// error; only a reader that came to io.EOF has the right bytes. The caller
// closes the reader.
//
// Content above 4 MiB is streamed and a broken connection is the caller's: for
// large blobs, read ranges of what Open returns.
func (c *Client) Fetch(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	if err := checkDescriptor(desc); err != nil {
		return nil, fmt.Errorf("fetching from %s: %w", r.name(), err)
	}
	path := "blobs/"
	if isManifest(desc.MediaType) {
		path = "manifests/"
		if err := checkManifestSize(desc.Size); err != nil {
			return nil, fmt.Errorf("fetching %s from %s: %w", desc.Digest, r.name(), err)
		}
	}
	accept := "*/*"
	if desc.MediaType != "" {
		accept = desc.MediaType + ", */*"
	}
	rq := &request{
		method: http.MethodGet, path: path + desc.Digest.String(), ref: r,
		name: r.name() + "@" + desc.Digest.String(), scope: r.scope("pull"),
		header: http.Header{"Accept": {accept}, "Accept-Encoding": {"identity"}},
	}
	var body io.ReadCloser
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		return c.eachHost(ctx, r, docker.HostCapabilityPull, func(e *endpoint) error {
			var err error
			body, err = c.fetchAt(ctx, e, rq, desc)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", rq.name, err)
	}
	return body, nil
}

func (c *Client) fetchAt(ctx context.Context, e *endpoint, rq *request, desc ocispec.Descriptor) (io.ReadCloser, error) {
	resp, err := c.fetch(ctx, e, rq)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode/100 == 2 {
			resp.Body.Close()
			return nil, violation(resp, rq.name, "unexpected answer")
		}
		return nil, statusError(resp, rq.name)
	}
	v := &verified{
		body: resp.Body, resp: resp, name: rq.name,
		left: desc.Size, want: desc.Digest, sum: desc.Digest.Verifier(),
	}
	if resp.ContentLength >= 0 && resp.ContentLength != desc.Size {
		v.Close()
		return nil, violation(resp, rq.name, "content has %d bytes, its descriptor says %d", resp.ContentLength, desc.Size)
	}
	if desc.Size > maxBuffered {
		return v, nil
	}
	defer v.Close()
	data := make([]byte, 0, desc.Size)
	buf := bytes.NewBuffer(data)
	if _, err := buf.ReadFrom(v); err != nil {
		return nil, requestError(ctx, resp.Request.URL.Host, rq.name, err)
	}
	return io.NopCloser(buf), nil
}

// verified reads a body of known size and digest.
type verified struct {
	body io.ReadCloser
	resp *http.Response
	name string
	left int64
	want digest.Digest
	sum  digest.Verifier
	err  error // sticky
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.body.Read(p)
	v.left -= int64(n)
	_, _ = v.sum.Write(p[:n])
	switch {
	case v.left < 0:
		v.err = violation(v.resp, v.name, "content is longer than its descriptor says")
	case errors.Is(err, io.EOF) && v.left > 0:
		v.err = transportError(v.resp.Request.URL.Host, v.name,
			fmt.Errorf("content ended %d bytes early: %w", v.left, io.ErrUnexpectedEOF))
	case err == io.EOF && !v.sum.Verified():
		v.err = &Error{Host: v.resp.Request.URL.Host, Ref: v.name, Status: v.resp.StatusCode,
			Err: errors.New("content does not have the digest it was asked for by")}
	case err == io.EOF:
		v.err = io.EOF
	case err != nil:
		v.err = transportError(v.resp.Request.URL.Host, v.name, err)
	}
	return n, v.err
}

// Close implements io.Closer.
func (v *verified) Close() error { return v.body.Close() }
