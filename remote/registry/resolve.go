package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// MaxManifestSize is the size in bytes above which manifests are refused.
const MaxManifestSize = 4 << 20

// manifestTypes is the Accept header for manifests.
var manifestTypes = []string{strings.Join([]string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
	images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList,
	"*/*",
}, ", ")}

// Resolve returns the descriptor of the manifest or index that ref names, by
// digest, by tag, or by the tag "latest" if it has neither. A tag is taken from
// hosts trusted to resolve tags only.
func (c *Client) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	r, err := parseReference(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	caps := docker.HostCapabilityPull
	if r.digest == "" {
		caps |= docker.HostCapabilityResolve
	}
	var desc ocispec.Descriptor
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		return c.eachHost(ctx, r, caps, func(e *endpoint) error {
			var err error
			desc, err = c.resolveAt(ctx, e, r)
			return err
		})
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", ref, err)
	}
	return desc, nil
}

func manifestRequest(method string, r reference) *request {
	return &request{
		method: method, path: "manifests/" + r.object(), ref: r,
		name: r.name() + ":" + r.object(), scope: r.scope("pull"),
		header: http.Header{"Accept": manifestTypes, "Accept-Encoding": {"identity"}},
	}
}

// resolveAt asks one host, by HEAD, and by GET if that does not tell all.
func (c *Client) resolveAt(ctx context.Context, e *endpoint, r reference) (ocispec.Descriptor, error) {
	head := manifestRequest(http.MethodHead, r)
	resp, err := c.fetch(ctx, e, head)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	resp.Body.Close()
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
		if desc, ok := headDescriptor(resp, r); ok {
			return desc, checkManifestSize(desc.Size)
		}
	case s == http.StatusNotFound, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented:
		return ocispec.Descriptor{}, statusError(resp, head.name)
	}
	// No HEAD, headers missing, or an error whose text only a GET has.
	return c.resolveByGet(ctx, e, r)
}

// headDescriptor returns the descriptor that the headers of a response make, if
// they suffice.
func headDescriptor(resp *http.Response, r reference) (ocispec.Descriptor, bool) {
	dgst, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || r.digest != "" && dgst != r.digest || resp.ContentLength <= 0 {
		return ocispec.Descriptor{}, false
	}
	mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || !isManifest(mt) {
		return ocispec.Descriptor{}, false
	}
	return ocispec.Descriptor{MediaType: mt, Digest: dgst, Size: resp.ContentLength}, true
}

func isManifest(mediaType string) bool {
	return images.IsManifestType(mediaType) || images.IsIndexType(mediaType)
}

func checkManifestSize(size int64) error {
	if size > MaxManifestSize {
		return blob.Permanent(fmt.Errorf("manifest of %d bytes refused: more than %d", size, MaxManifestSize))
	}
	return nil
}

// resolveByGet reads the manifest and describes what came.
func (c *Client) resolveByGet(ctx context.Context, e *endpoint, r reference) (ocispec.Descriptor, error) {
	rq := manifestRequest(http.MethodGet, r)
	resp, err := c.fetch(ctx, e, rq)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, statusError(resp, rq.name)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifestSize+1))
	if err != nil {
		return ocispec.Descriptor{}, requestError(ctx, resp.Request.URL.Host, rq.name, err)
	}
	if len(text) > MaxManifestSize {
		return ocispec.Descriptor{}, violation(resp, rq.name, "manifest refused: more than %d bytes", MaxManifestSize)
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(text), Size: int64(len(text))}
	if r.digest != "" {
		desc.Digest = r.digest.Algorithm().FromBytes(text)
		if desc.Digest != r.digest {
			return ocispec.Descriptor{}, violation(resp, rq.name, "answered content with digest %s", desc.Digest)
		}
	}
	if desc.MediaType, err = manifestType(text, resp.Header.Get("Content-Type")); err != nil {
		return ocispec.Descriptor{}, violation(resp, rq.name, "%w", err)
	}
	return desc, nil
}

// manifestType returns what a manifest says it is, else what its header does.
func manifestType(text []byte, header string) (string, error) {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return "", fmt.Errorf("what should be a manifest is none: %w", err)
	}
	mt, _, _ := mime.ParseMediaType(header)
	switch {
	case isManifest(doc.MediaType):
		return doc.MediaType, nil
	case isManifest(mt):
		return mt, nil
	case doc.Manifests != nil && doc.Layers == nil:
		return ocispec.MediaTypeImageIndex, nil
	case doc.Layers != nil && doc.Manifests == nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("media type %q with content of type %q is no manifest", mt, doc.MediaType)
}
