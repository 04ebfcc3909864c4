package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// manifestKey names a manifest of an upstream as it is asked for.
type manifestKey struct {
	target                        route.Target
	repository, reference, accept string
}

// served is a manifest that can be served.
type served struct {
	item      *item
	mediaType string
}

// manifest answers a request for a manifest.
func (x *exchange) manifest() {
	accept := x.h.accepts.canonical(x.r.Header["Accept"])
	d, ok := x.check(accept, permit.Whole)
	if !ok {
		return
	}
	want := x.wantedManifest(&d, accept)
	if x.r.Method == http.MethodHead && x.describe(d, want) {
		return
	}
	m, err := x.findOrFetch(want, d.Descriptor.MediaType, accept)
	if err != nil && d.Trusted && want == "" {
		m, err = x.lastTag(accept, err)
	}
	if err != nil {
		x.fail(answerTo(err, KindManifest))
		return
	}
	x.res.digest = m.item.digest
	if x.h.cfg.OnManifest != nil && x.r.Method == http.MethodGet {
		x.h.cfg.OnManifest(x.r.Context(), Manifest{
			Target: x.target, Repository: x.res.repository, Reference: x.res.reference,
			Descriptor: ocispec.Descriptor{MediaType: m.mediaType, Digest: m.item.digest, Size: int64(len(m.item.body))},
			Body:       m.item.body, Source: x.sourceOf,
		})
	}
	x.sendItem(m.item, []string{m.mediaType}, wanted{}, false)
}

// wantedManifest returns the digest of what is to be served, "" if only a GET
// can tell. d is what the upstream said to this caller; where it was not asked,
// the tag's last known meaning counts, and its media type is put into d.
func (x *exchange) wantedManifest(d *permit.Decision, accept string) digest.Digest {
	if !d.Stale && !d.Trusted {
		if x.res.digest != "" {
			return x.res.digest
		}
		if isDigest(string(d.Descriptor.Digest)) {
			return d.Descriptor.Digest
		}
		return ""
	}
	link, ok := x.h.parts.Index.Lookup(x.key(x.res.reference, accept))
	switch {
	case x.res.digest != "":
		if ok {
			d.Descriptor.MediaType = link.Descriptor.MediaType
		}
		return x.res.digest
	case !ok:
		return ""
	}
	age := time.Since(link.CheckedAt)
	if d.Trusted && (age > x.h.cfg.TrustedTagTTL || age < 0) {
		return ""
	}
	x.age = max(age, 0)
	d.Descriptor.MediaType = link.Descriptor.MediaType
	return link.Descriptor.Digest
}

// lastTag returns the last known meaning of a tag that could not be looked up
// because of err, for callers whom nobody would have to permit it.
func (x *exchange) lastTag(accept string, err error) (*served, error) {
	link, ok := x.h.parts.Index.Lookup(x.key(x.res.reference, accept))
	if !ok || !inTrouble(err) {
		return nil, err
	}
	m, ok := x.stored(link.Descriptor.Digest, link.Descriptor.MediaType)
	if !ok {
		return nil, err
	}
	x.outcome = OutcomeStale
	x.age = max(time.Since(link.CheckedAt), 0)
	return m, nil
}

// key is the index key of a reference in the repository asked for. What a tag
// means depends on Accept, what a digest means does not.
func (x *exchange) key(reference, accept string) index.Key {
	k := index.Key{
		Scheme: x.target.Scheme, Host: x.target.Host, Repository: x.res.repository,
		Kind: x.res.kind, Reference: reference,
	}
	if x.res.digest == "" && reference == x.res.reference {
		k.Accept = acceptClass(accept)
	}
	return k
}

// describe answers a HEAD with what the upstream just said to the same HEAD, if
// that is all that there is to say.
func (x *exchange) describe(d permit.Decision, want digest.Digest) bool {
	desc := d.Descriptor
	if d.Stale || d.Trusted || want == "" || desc.Digest != want || desc.Size <= 0 || desc.MediaType == "" {
		return false
	}
	etag := etagOf(want)
	x.res.digest = want
	if x.precondition(etag) {
		return true
	}
	h := x.w.Header()
	h["Content-Type"] = []string{desc.MediaType}
	h["Content-Length"] = []string{formatInt(desc.Size)}
	h["Docker-Content-Digest"] = []string{string(want)}
	h["Etag"] = []string{etag}
	x.outcomeIs(OutcomePassed)
	x.begin(http.StatusOK)
	return true
}

// findOrFetch returns the manifest: from the cache if it has want, else from the
// upstream, of which one request at a time asks for it.
func (x *exchange) findOrFetch(want digest.Digest, claimedType, accept string) (*served, error) {
	key := manifestKey{x.target, x.res.repository, x.res.reference, accept}
	if x.res.digest != "" {
		key.accept = ""
	}
	own := false
	m, err := x.h.manifests.do(x.r.Context(), key, task[*served]{
		who: string(x.auth),
		found: func() (*served, bool) {
			if want == "" {
				return nil, false
			}
			return x.stored(want, claimedType)
		},
		work: func() (*served, error) {
			own = true
			if m, ok := x.sharedManifest(want, claimedType, accept); ok {
				return m, nil
			}
			return x.fetchManifest(accept)
		},
		// Whoever was told by the upstream that this is what the reference
		// means may have it; who was not has only the word of the one who asked.
		usable: func(m *served) bool { return m.item.digest == want },
	})
	switch {
	case err != nil:
		return nil, err
	case own:
		x.outcomeIs(OutcomeMiss)
	case x.res.digest == "" && want != "":
		x.remember(m, accept)
	}
	x.hit()
	return m, nil
}

// stored returns a manifest that memory or disk has. claimedType is what the
// upstream says that it is; a manifest that says otherwise is not found, so the
// upstream's own answer decides.
func (x *exchange) stored(d digest.Digest, claimedType string) (*served, bool) {
	var it *item
	if x.h.memory != nil {
		if it = x.h.memory.find(d); it != nil {
			x.used(it)
		}
	}
	if it == nil {
		c, ok := x.h.parts.Cache.Find(x.origin(), d)
		if !ok {
			return nil, false
		}
		defer c.Release()
		if !c.Verified() || !c.Complete() || c.Descriptor().Size > x.h.cfg.MaxManifest {
			return nil, false
		}
		if it, ok = x.h.promote(c); !ok {
			return nil, false
		}
	}
	if claimedType == "" {
		if link, ok := x.h.parts.Index.Lookup(x.digestKey(d)); ok {
			claimedType = link.Descriptor.MediaType
		}
	}
	doc, err := it.document()
	if err != nil {
		return nil, false
	}
	mt, err := doc.typed(claimedType)
	return &served{it, mt}, err == nil
}

// digestKey is the index key of a digest in the repository asked for.
func (x *exchange) digestKey(d digest.Digest) index.Key {
	return index.Key{
		Scheme: x.target.Scheme, Host: x.target.Host, Repository: x.res.repository,
		Kind: KindManifest, Reference: string(d),
	}
}

// sharedWait is how long it is tried to get a manifest from where it is shared.
const sharedWait = 3 * time.Second

// sharedManifest gets the manifest d from where it is shared, and keeps it. "" is no
// manifest's digest.
func (x *exchange) sharedManifest(d digest.Digest, claimedType, accept string) (*served, bool) {
	if x.h.parts.Shared == nil || d == "" {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), sharedWait)
	defer cancel()
	body, ok := x.h.parts.Shared.Fetch(ctx, d, x.h.cfg.MaxManifest)
	if !ok {
		return nil, false
	}
	m := &served{item: newItem(body, d)}
	doc, err := m.item.document()
	if err == nil {
		m.mediaType, err = doc.typed(claimedType)
	}
	if err != nil { // the upstream's own answer decides
		return nil, false
	}
	x.keep(m, accept)
	return m, true
}

// fetchManifest gets the manifest from the upstream and keeps it. It does not
// end with the client, because others wait for it.
func (x *exchange) fetchManifest(accept string) (*served, error) {
	u := &url.URL{Path: "/v2/" + x.res.repository + "/manifests/" + x.res.reference}
	header, body, err := x.get(u, accept, x.h.cfg.MaxManifest)
	if err != nil {
		x.h.denied(x.r.Context(), permit.Resource{
			Target: x.target, Repository: x.res.repository, Kind: KindManifest, Reference: x.res.reference, Accept: accept,
		}, x.auth, err)
		return nil, err
	}
	it := newItem(body, digest.FromBytes(body))
	if x.res.digest != "" && it.digest != x.res.digest {
		x.h.count.badContent.Add(1)
		return nil, apiErrorf(http.StatusBadGateway, codeManifestInvalid,
			"the upstream answers %s when asked for %s", it.digest, x.res.digest)
	}
	doc, err := it.document()
	mt := ""
	if err == nil {
		mt, err = doc.typed(header.Get("Content-Type"))
	}
	if err != nil {
		return nil, apiErrorf(http.StatusBadGateway, codeManifestInvalid, "manifest of the upstream refused: %v", err)
	}
	m := &served{it, mt}
	x.keep(m, accept)
	return m, nil
}

// get returns head and body of the upstream's answer to a GET of u's path and query,
// with the caller's credentials; a status that is not 200 is a *statusError, more than
// limit bytes an error. It does not end with the client, because others wait for it.
func (x *exchange) get(u *url.URL, accept string, limit int64) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), x.h.cfg.FetchTimeout)
	defer cancel()
	req := newRequest(ctx, http.MethodGet, x.target, u.Path, x.auth)
	req.URL.RawQuery = u.RawQuery
	if accept != "" {
		req.Header["Accept"] = []string{accept}
	}
	resp, err := x.h.parts.Upstream.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, newStatusError(resp, x.target)
	}
	body, err := readBounded(resp, limit)
	return resp.Header, body, err
}

// readBounded reads the body of an answer of at most n bytes.
func readBounded(resp *http.Response, n int64) ([]byte, error) {
	tooLarge := apiErrorf(http.StatusBadGateway, codeManifestInvalid, "the upstream answers more than %d bytes", n)
	if resp.ContentLength > n {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, n+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the upstream's answer: %w", err)
	case int64(len(body)) > n:
		return nil, tooLarge
	}
	return body, nil
}

// keep stores a manifest under the digest it has, and what leads to it. What is
// not stored is fetched again, so a failure is only counted.
func (x *exchange) keep(m *served, accept string) {
	if x.h.memory != nil {
		x.h.memory.keep(m.item)
	}
	if err := x.storeItem(m); err != nil {
		x.h.count.notStored.Add(1)
		return
	}
	x.remember(m, accept)
}

// storeItem stores content that was hashed. What is there of it already stays as it
// is, and may be an upstream's lie about a part of the blob of that digest: so it is
// compared as it lies there, and begun anew if it is wrong.
func (x *exchange) storeItem(m *served) error {
	ctx := context.WithoutCancel(x.r.Context())
	desc := ocispec.Descriptor{MediaType: m.mediaType, Digest: m.item.digest, Size: int64(len(m.item.body))}
	err := x.storeOver(ctx, desc, m.item.body)
	if errors.Is(err, cache.ErrMismatch) {
		x.h.count.badContent.Add(1)
		err = x.storeOver(ctx, desc, m.item.body)
	}
	return err
}

func (x *exchange) storeOver(ctx context.Context, desc ocispec.Descriptor, body []byte) error {
	c, err := x.h.hold(blobKey{x.origin(), desc.Digest}, desc.Size)
	if err != nil {
		return err
	}
	defer c.Release()
	if c.Verified() && c.Complete() {
		return nil
	}
	if err := c.Store(ctx, body, 0); err != nil {
		return err
	}
	err = c.Verify(ctx, nil)
	if err == nil && x.h.parts.Shared != nil {
		x.h.parts.Shared.Verified(c)
	}
	return err
}

// remember links the tag, if one was asked for, and the digest to the manifest.
func (x *exchange) remember(m *served, accept string) {
	now := time.Now()
	desc := ocispec.Descriptor{MediaType: m.mediaType, Digest: m.item.digest, Size: int64(len(m.item.body))}
	keys := []index.Key{x.digestKey(desc.Digest)}
	if x.res.digest == "" {
		keys = append(keys, x.key(x.res.reference, accept))
	}
	for _, k := range keys {
		link := index.Link{Key: k, Descriptor: desc, FetchedAt: now, CheckedAt: now, LastUsed: now}
		if old, ok := x.h.parts.Index.Lookup(k); ok && old.Descriptor.Digest == desc.Digest && old.Descriptor.MediaType == desc.MediaType {
			if k.Reference == string(desc.Digest) || now.Sub(old.CheckedAt) < checkedEvery {
				x.h.parts.Index.Touch(k)
				continue
			}
			link.FetchedAt = old.FetchedAt
		}
		if err := x.h.parts.Index.Put(link); err != nil {
			x.h.count.notStored.Add(1)
		}
	}
}

// checkedEvery is how exactly the index knows when a tag was last confirmed.
const checkedEvery = 30 * time.Second

// document parses what the item says it is, once.
func (it *item) document() (document, error) {
	it.parse.Do(func() { it.doc, it.docErr = parseDocument(it.body) })
	return it.doc, it.docErr
}
