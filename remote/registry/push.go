package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Push writes the content that desc describes: a manifest or index under the
// tag of ref, or by its digest if ref has no tag, anything else as a blob. What
// the registry has already is not sent again. r is read from its current
// position; if it is an io.Seeker, a broken upload is repeated.
func (c *Client) Push(ctx context.Context, ref string, desc ocispec.Descriptor, r io.Reader) error {
	to, err := parseReference(ref)
	if err != nil {
		return err
	}
	if err = checkDescriptor(desc); err == nil {
		if isManifest(desc.MediaType) {
			err = c.pushManifest(ctx, to, desc, r)
		} else {
			err = c.pushBlob(ctx, to, desc, r)
		}
	}
	if err != nil {
		return fmt.Errorf("pushing %s to %s: %w", desc.Digest, to.name(), err)
	}
	return nil
}

// pushHost returns the host to push to: mirrors rarely take anything.
func (c *Client) pushHost(ctx context.Context, r reference) (*endpoint, error) {
	all, err := c.hosts.endpoints(ctx, r.ns)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.caps.Has(docker.HostCapabilityPush) {
			return e, nil
		}
	}
	return nil, fmt.Errorf("no host of %s is configured for pushing: %w", r.ns, errdefs.ErrUnavailable)
}

func (c *Client) pushManifest(ctx context.Context, to reference, desc ocispec.Descriptor, r io.Reader) error {
	if to.digest != "" && to.digest != desc.Digest {
		return fmt.Errorf("the reference says %s", to.digest)
	}
	if err := checkManifestSize(desc.Size); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r, desc.Size+1))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	if got := desc.Digest.Algorithm().FromBytes(text); got != desc.Digest || int64(len(text)) != desc.Size {
		return fmt.Errorf("the manifest has %d bytes, digest %s: not what its descriptor says", len(text), got)
	}
	object := to.tag
	if object == "" || to.digest != "" {
		object = desc.Digest.String()
	}
	e, err := c.pushHost(ctx, to)
	if err != nil {
		return err
	}
	put := c.pushRequest(http.MethodPut, "manifests/"+object, to, desc)
	put.header.Set("Content-Type", desc.MediaType)
	put.size = desc.Size
	put.body = func() (io.Reader, error) { return bytes.NewReader(text), nil }
	return c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		resp, err := c.do(ctx, e, put, put.apiURL(e))
		if err != nil {
			return err
		}
		return stored(resp, put.name, desc.Digest)
	})
}

func (c *Client) pushRequest(method, path string, to reference, desc ocispec.Descriptor) *request {
	return &request{
		method: method, path: path, ref: to, scope: to.scope("pull,push"),
		name: to.name() + "@" + desc.Digest.String(), header: http.Header{},
	}
}

// stored checks the answer to a PUT.
func stored(resp *http.Response, name string, want digest.Digest) error {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
	default:
		return unexpected(resp, name)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != want.String() {
		return violation(resp, name, "stored as %s", got)
	}
	return nil
}

// unexpected is statusError, also for answers that are no errors.
func unexpected(resp *http.Response, name string) error {
	if resp.StatusCode < 400 {
		resp.Body.Close()
		return violation(resp, name, "unexpected answer %d", resp.StatusCode)
	}
	return statusError(resp, name)
}

func (c *Client) pushBlob(ctx context.Context, to reference, desc ocispec.Descriptor, r io.Reader) error {
	e, err := c.pushHost(ctx, to)
	if err != nil {
		return err
	}
	body := replay(r)
	return c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		head := c.pushRequest(http.MethodHead, "blobs/"+desc.Digest.String(), to, desc)
		resp, err := c.fetch(ctx, e, head)
		if err != nil {
			return err
		}
		resp.Body.Close()
		switch s := resp.StatusCode; {
		case s == http.StatusOK:
			return nil
		case s == http.StatusTooManyRequests, s >= 500:
			return statusError(resp, head.name)
		}
		// Also after a 403, which may be for reading only: the answer
		// that counts is that to the upload.
		return c.upload(ctx, e, to, desc, body)
	})
}

// upload sends a blob in one piece.
func (c *Client) upload(ctx context.Context, e *endpoint, to reference, desc ocispec.Descriptor, body func() (io.Reader, error)) error {
	post := c.pushRequest(http.MethodPost, "blobs/uploads/", to, desc)
	post.body = func() (io.Reader, error) { return http.NoBody, nil }
	resp, err := c.do(ctx, e, post, post.apiURL(e))
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		return stored(resp, post.name, desc.Digest)
	case http.StatusAccepted:
	default:
		return unexpected(resp, post.name)
	}
	resp.Body.Close()
	at, err := redirectTarget(resp)
	if err != nil {
		return violation(resp, post.name, "starting an upload: %w", err)
	}
	q := at.Query()
	q.Set("digest", desc.Digest.String())
	at.RawQuery = q.Encode()

	put := c.pushRequest(http.MethodPut, "", to, desc)
	put.header.Set("Content-Type", "application/octet-stream")
	put.body, put.size = body, desc.Size
	if resp, err = c.put(ctx, e, put, at, resp.Request.URL); err != nil {
		return err
	}
	return stored(resp, put.name, desc.Digest)
}

// put sends the content to where the registry wants it, with credentials only
// if that is the registry itself.
func (c *Client) put(ctx context.Context, e *endpoint, put *request, at, home *url.URL) (*http.Response, error) {
	if sameOrigin(at, home) {
		return c.do(ctx, e, put, at)
	}
	return c.follow(ctx, e, put, at, home)
}

// replay returns a function that returns r, from where it is now, for each
// attempt, or an error if it can't be read a second time.
func replay(r io.Reader) func() (io.Reader, error) {
	seeker, ok := r.(io.Seeker)
	var start int64
	if ok {
		var err error
		start, err = seeker.Seek(0, io.SeekCurrent)
		ok = err == nil
	}
	used := false
	return func() (io.Reader, error) {
		switch {
		case !used:
			used = true
		case !ok:
			return nil, blob.Permanent(errors.New("the upload broke, and its source can not be read again"))
		default:
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return nil, blob.Permanent(fmt.Errorf("rewinding the source of the upload: %w", err))
			}
		}
		return r, nil
	}
}
