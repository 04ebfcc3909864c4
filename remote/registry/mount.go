package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Exists reports whether the repository of ref has the content that desc
// describes, a manifest or a blob, at the host to push to.
func (c *Client) Exists(ctx context.Context, ref string, desc ocispec.Descriptor) (bool, error) {
	r, err := parseReference(ref)
	if err == nil {
		err = checkDescriptor(desc)
	}
	if err != nil {
		return false, err
	}
	e, err := c.pushHost(ctx, r)
	if err != nil {
		return false, err
	}
	var there bool
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		var err error
		there, err = c.existsAt(ctx, e, r, desc)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking for %s in %s: %w", desc.Digest, r.name(), err)
	}
	return there, nil
}

func (c *Client) existsAt(ctx context.Context, e *endpoint, r reference, desc ocispec.Descriptor) (bool, error) {
	path := "blobs/"
	if isManifest(desc.MediaType) {
		path = "manifests/"
	}
	head := c.pushRequest(http.MethodHead, path+desc.Digest.String(), r, desc)
	head.header.Set("Accept-Encoding", "identity")
	if isManifest(desc.MediaType) {
		head.header.Set("Accept", desc.MediaType)
	}
	resp, err := c.fetch(ctx, e, head)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != desc.Size {
			return false, violation(resp, head.name, "content has %d bytes, its descriptor says %d", resp.ContentLength, desc.Size)
		}
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, unexpected(resp, head.name)
}

// Mount makes the blob desc of the repository of from, which is at the same
// registry, a blob of the repository of ref, without transferring it. It
// returns false if the registry does not: it can't, from does not have the
// blob, or may not be read.
func (c *Client) Mount(ctx context.Context, ref string, desc ocispec.Descriptor, from string) (bool, error) {
	to, err := parseReference(ref)
	if err != nil {
		return false, err
	}
	there, err := parseReference(from)
	if err == nil {
		err = checkDescriptor(desc)
	}
	if err != nil {
		return false, err
	}
	if to.ns != there.ns || to.repo == there.repo {
		return false, nil
	}
	e, err := c.pushHost(ctx, to)
	if err != nil {
		return false, err
	}
	post := c.pushRequest(http.MethodPost, "blobs/uploads/", to, desc)
	post.scope += " " + there.scope("pull")
	post.query = url.Values{"mount": {desc.Digest.String()}, "from": {there.repo}}
	post.body = func() (io.Reader, error) { return http.NoBody, nil }
	var mounted bool
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		resp, err := c.do(ctx, e, post, post.apiURL(e))
		if err != nil {
			return err
		}
		mounted, err = c.mounted(ctx, e, post, desc, resp)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("mounting %s from %s into %s: %w", desc.Digest, there.repo, to.name(), err)
	}
	return mounted, nil
}

// mounted reads the answer to a request to mount.
func (c *Client) mounted(ctx context.Context, e *endpoint, post *request, desc ocispec.Descriptor, resp *http.Response) (bool, error) {
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, stored(resp, post.name, desc.Digest)
	case http.StatusAccepted:
		// The registry opened an upload instead, which nobody wants.
		resp.Body.Close()
		at, err := redirectTarget(resp)
		if err != nil || !sameOrigin(at, resp.Request.URL) {
			return false, nil
		}
		cancel := *post
		cancel.method, cancel.body = http.MethodDelete, nil
		if resp, err = c.do(ctx, e, &cancel, at); err == nil {
			resp.Body.Close()
		}
		return false, ctx.Err()
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest:
		resp.Body.Close()
		return false, nil
	}
	return false, unexpected(resp, post.name)
}
