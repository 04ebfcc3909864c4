package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// subjectHeader is in the answer to a pushed manifest if the registry lists it
// as a referrer.
const subjectHeader = "OCI-Subject"

// maxReferrerPages bounds how long a list of referrers is followed.
const maxReferrerPages = 100

// Referrers returns the manifests in the repository of ref whose subject is the
// manifest with digest subject, of one artifact type, or of all if it is empty.
// Registries without the referrers API are asked for the index at the tag that
// the distribution specification names for them.
//
// That there are none is only believed of the registry itself: a mirror may have
// neither API nor tag, or not have heard of them yet.
func (c *Client) Referrers(ctx context.Context, ref string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	r, err := parseReference(ref)
	if err == nil {
		err = subject.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("listing referrers of %q in %s: %w", subject, ref, err)
	}
	var all []ocispec.Descriptor
	err = c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		return c.eachHost(ctx, r, docker.HostCapabilityPull|docker.HostCapabilityResolve, func(e *endpoint) error {
			found, err := c.referrersAt(ctx, e, r, subject, artifactType)
			if err != nil {
				return err
			}
			if artifactType != "" { // registries need not filter
				found = slices.DeleteFunc(found, func(d ocispec.Descriptor) bool { return d.ArtifactType != artifactType })
			}
			if len(found) == 0 && !e.last {
				return &Error{
					Host: e.host, Ref: r.name() + " referrers/" + subject.String(), Status: http.StatusNotFound,
					Excerpt: "a mirror lists none, which says nothing about the registry", permanent: true,
				}
			}
			all = found
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing referrers of %s in %s: %w", subject, r.name(), err)
	}
	return all, nil
}

func (c *Client) referrersAt(ctx context.Context, e *endpoint, r reference, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	rq := &request{
		method: http.MethodGet, path: "referrers/" + subject.String(), ref: r,
		name: r.name() + " referrers/" + subject.String(), scope: r.scope("pull"),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}, "Accept-Encoding": {"identity"}},
	}
	if artifactType != "" {
		rq.query = url.Values{"artifactType": {artifactType}}
	}
	var all []ocispec.Descriptor
	for range maxReferrerPages {
		resp, err := c.fetch(ctx, e, rq)
		if err != nil {
			return nil, err
		}
		page, supported, err := referrersPage(ctx, resp, rq.name)
		switch {
		case err != nil:
			return nil, err
		case !supported:
			index, err := c.referrersTag(ctx, e, r, subject)
			return index.Manifests, err
		}
		all = append(all, page...)
		next := nextPage(resp)
		if next == nil {
			return all, nil
		}
		// The same path with the registry's own query.
		rq.query = next.Query()
	}
	return nil, fmt.Errorf("the list of referrers has more than %d pages", maxReferrerPages)
}

// referrersPage reads an answer of the referrers API; supported says whether
// it is one.
func referrersPage(ctx context.Context, resp *http.Response, name string) (page []ocispec.Descriptor, supported bool, err error) {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch s := resp.StatusCode; {
	case s == http.StatusOK && mt == ocispec.MediaTypeImageIndex:
	case s == http.StatusOK, s == http.StatusNotFound, s == http.StatusBadRequest,
		s == http.StatusMethodNotAllowed, s == http.StatusNotAcceptable, s == http.StatusNotImplemented:
		resp.Body.Close()
		return nil, false, nil
	default:
		return nil, false, unexpected(resp, name)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifestSize+1))
	if err != nil {
		return nil, true, requestError(ctx, resp.Request.URL.Host, name, err)
	}
	index, err := parseReferrers(text)
	if err != nil {
		return nil, true, violation(resp, name, "%w", err)
	}
	return index.Manifests, true, nil
}

// parseReferrers parses an index of referrers, whose descriptors it checks.
func parseReferrers(text []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if len(text) > MaxManifestSize {
		return index, fmt.Errorf("index of referrers refused: more than %d bytes", MaxManifestSize)
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return index, fmt.Errorf("parsing the index of referrers: %w", err)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return index, fmt.Errorf("index of referrers: %w", err)
		}
	}
	return index, nil
}

var linkNext = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

// nextPage returns where a list goes on, or nil at its end.
func nextPage(resp *http.Response) *url.URL {
	for _, link := range resp.Header.Values("Link") {
		if m := linkNext.FindStringSubmatch(link); m != nil {
			if u, err := url.Parse(m[1]); err == nil {
				return u
			}
		}
	}
	return nil
}

// referrersTagOf is the tag of the index of referrers in registries without
// their API: <algorithm>-<hex>, cut at the longest tag there can be.
func referrersTagOf(subject digest.Digest) string {
	encoded := subject.Encoded()
	return subject.Algorithm().String() + "-" + encoded[:min(len(encoded), 64)]
}

// referrersTag returns the index of referrers that clients keep; an empty one
// if there is none.
func (c *Client) referrersTag(ctx context.Context, e *endpoint, r reference, subject digest.Digest) (ocispec.Index, error) {
	empty := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	tag := reference{ns: r.ns, repo: r.repo, tag: referrersTagOf(subject)}
	desc, err := c.resolveAt(ctx, e, tag)
	if errors.Is(err, errdefs.ErrNotFound) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	if desc.MediaType != ocispec.MediaTypeImageIndex {
		return empty, fmt.Errorf("tag %s is no index of referrers but %s", tag.tag, desc.MediaType)
	}
	rq := manifestRequest(http.MethodGet, reference{ns: r.ns, repo: r.repo, digest: desc.Digest})
	body, err := c.fetchAt(ctx, e, rq, desc)
	if err != nil {
		return empty, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return empty, err
	}
	return parseReferrers(text)
}

// Referrer returns what an index of referrers lists for the manifest or index
// text, which desc describes, and what that refers to. Without a subject, which
// is what everything but manifests has, too, ok is false.
func Referrer(desc ocispec.Descriptor, text []byte) (entry, subject ocispec.Descriptor, ok bool) {
	var m struct {
		ArtifactType string              `json:"artifactType"`
		Config       *ocispec.Descriptor `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Subject == nil {
		return entry, subject, false
	}
	entry = ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
	if entry.ArtifactType == "" && m.Config != nil {
		entry.ArtifactType = m.Config.MediaType
	}
	return entry, *m.Subject, true
}

// referral is an entry of the list of referrers of a manifest.
type referral struct {
	entry, subject ocispec.Descriptor
	// replaces says which other entries the entry supersedes; nil: none.
	replaces func(ocispec.Descriptor) bool
}

// into returns the list with the entry, and whether it was so before.
func (r referral) into(list []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
	found := false
	rest := slices.DeleteFunc(slices.Clone(list), func(d ocispec.Descriptor) bool {
		if d.Digest == r.entry.Digest {
			found = true
			return false
		}
		return r.replaces != nil && r.replaces(d)
	})
	if found {
		return rest, len(rest) == len(list)
	}
	return append(rest, r.entry), false
}

// listReferrer adds a manifest that was pushed to the index of referrers of its
// subject.
func (c *Client) listReferrer(ctx context.Context, e *endpoint, to reference, r referral) error {
	if err := checkDescriptor(r.subject); err != nil {
		return fmt.Errorf("subject of the manifest: %w", err)
	}
	// Within this process, one after the other; against others, nothing but
	// looking whether the entry is still there helps.
	c.referring.Lock()
	defer c.referring.Unlock()
	err := c.cfg.Retry.Do(ctx, func(ctx context.Context) error {
		return c.addReferrer(ctx, e, to, r)
	})
	if err != nil {
		return fmt.Errorf("listing it as a referrer of %s: %w", r.subject.Digest, err)
	}
	return nil
}

func (c *Client) addReferrer(ctx context.Context, e *endpoint, to reference, r referral) error {
	subject := r.subject.Digest
	index, err := c.referrersTag(ctx, e, to, subject)
	if err != nil {
		return err
	}
	var done bool
	if index.Manifests, done = r.into(index.Manifests); done {
		return nil
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(text), Size: int64(len(text)),
	}
	if err := checkManifestSize(desc.Size); err != nil {
		return err
	}
	put := c.pushRequest(http.MethodPut, "manifests/"+referrersTagOf(subject), to, desc)
	put.header.Set("Content-Type", desc.MediaType)
	put.size = desc.Size
	put.body = func() (io.Reader, error) { return bytes.NewReader(text), nil }
	resp, err := c.do(ctx, e, put, put.apiURL(e))
	if err == nil {
		err = stored(resp, put.name, desc.Digest)
	}
	if err != nil {
		return err
	}
	if index, err = c.referrersTag(ctx, e, to, subject); err == nil && !lists(index, r.entry) {
		err = errors.New("another client changed the index of referrers at the same time") // so once more
	}
	return err
}

// lists reports whether an index has an entry.
func lists(index ocispec.Index, entry ocispec.Descriptor) bool {
	return slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == entry.Digest })
}
