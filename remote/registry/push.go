package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Push writes the content that desc describes: a manifest or index under the
// tag of ref, or by its digest if ref has no tag, anything else as a blob. A
// blob that the registry has already is not sent again. r is read from its
// current position; if it is an io.Seeker, a broken upload is repeated, and if
// it is an io.ReaderAt, too, without disturbing the broken one.
//
// A manifest with a subject becomes a referrer: where the registry does not
// keep the list of referrers, Push does, see Referrers.
func (c *Client) Push(ctx context.Context, ref string, desc ocispec.Descriptor, r io.Reader) error {
	return c.push(ctx, ref, desc, r, nil)
}

// PushReferrer is Push of a manifest with a subject that supersedes others: in a
// list of referrers that Push keeps, it takes the place of those that replaces
// says. A registry that keeps the list itself goes on to list them, and where
// nothing lists them any more, their manifests stay, too.
func (c *Client) PushReferrer(ctx context.Context, ref string, desc ocispec.Descriptor, r io.Reader, replaces func(ocispec.Descriptor) bool) error {
	return c.push(ctx, ref, desc, r, replaces)
}

func (c *Client) push(ctx context.Context, ref string, desc ocispec.Descriptor, r io.Reader, replaces func(ocispec.Descriptor) bool) error {
	to, err := parseReference(ref)
	if err != nil {
		return err
	}
	if err = checkDescriptor(desc); err == nil {
		if isManifest(desc.MediaType) {
			err = c.pushManifest(ctx, to, desc, r, replaces)
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

func (c *Client) pushManifest(ctx context.Context, to reference, desc ocispec.Descriptor, r io.Reader, replaces func(ocispec.Descriptor) bool) error {
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
	listed := false
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		resp, err := c.do(ctx, e, put, put.apiURL(e))
		if err != nil {
			return err
		}
		listed = resp.Header.Get(subjectHeader) != ""
		return stored(resp, put.name, desc.Digest)
	})
	if err != nil || listed {
		return err
	}
	entry, subject, ok := Referrer(desc, text)
	if !ok {
		return nil
	}
	return c.listReferrer(ctx, e, to, referral{entry, subject, replaces})
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
