package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

const (
	filtersApplied = "Oci-Filters-Applied"
	maxQuery       = 2 << 10 // bytes of a query that is passed on
)

// listKey names a page of a list of an upstream.
type listKey struct {
	target      route.Target
	path, query string
}

// page is an upstream's page of a list, read whole.
type page struct {
	body        []byte
	contentType string
	filters     string // that the upstream or we applied
	next        string // query of the next page, "" if there is none
	stale       bool
}

// tags answers a request for the tags of a repository with the upstream's own
// answer to the same caller, which is not kept.
func (x *exchange) tags() {
	path := "/v2/" + x.res.repository + "/tags/list"
	p, err := x.list(path, "application/json")
	if err != nil {
		x.fail(answerTo(err, KindTags))
		return
	}
	x.sendPage(p)
}

// list gets a page from the upstream; those who ask for the same with the same
// credentials at the same time share it.
func (x *exchange) list(path, accept string) (*page, error) {
	query, e := x.passedQuery()
	if e != nil {
		return nil, e
	}
	return x.h.lists.do(x.r.Context(), listKey{x.target, path + "\x00" + string(x.auth), query}, task[*page]{
		who:    string(x.auth),
		found:  func() (*page, bool) { return nil, false },
		work:   func() (*page, error) { return x.fetchPage(path, query, accept) },
		usable: func(*page) bool { return true }, // the key has the credentials
	})
}

// passedQuery is the client's query without ns, in a fixed order.
func (x *exchange) passedQuery() (string, *apiError) {
	if x.r.URL.RawQuery == "" {
		return "", nil
	}
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil || len(x.r.URL.RawQuery) > maxQuery {
		return "", apiErrorf(http.StatusBadRequest, codeUnsupported, "the query is not understood")
	}
	q.Del("ns")
	return q.Encode(), nil
}

func (x *exchange) fetchPage(path, query, accept string) (*page, error) {
	header, body, err := x.get(&url.URL{Path: path, RawQuery: query}, accept, x.h.cfg.MaxList)
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, apiErrorf(http.StatusBadGateway, codeUnavailable, "the upstream's list is not JSON")
	}
	return &page{
		body: body, contentType: accept, filters: header.Get(filtersApplied), next: nextPage(header, path),
	}, nil
}

func (x *exchange) sendPage(p *page) {
	leave := x.admit(len(p.body))
	if leave == nil {
		return
	}
	defer leave()
	if p.stale {
		x.outcome = OutcomeStale
	}
	x.outcomeIs(OutcomePassed)
	h := x.w.Header()
	h["Content-Type"] = []string{p.contentType}
	if p.filters != "" {
		h[filtersApplied] = []string{p.filters}
	}
	if p.next != "" {
		h["Link"] = []string{linkTo(x.r.URL.Path, p.next, x.ns)}
	}
	h["Content-Length"] = []string{formatInt(int64(len(p.body)))}
	x.begin(http.StatusOK)
	x.write(p.body)
}

// referrers answers a request for the manifests that refer to a digest with the
// upstream's own answer to the same caller. What it answered last is kept for
// when it does not, for callers who may see the subject then.
func (x *exchange) referrers() {
	if x.h.trusted() {
		if p := x.keptReferrers(); p != nil && x.age < x.h.cfg.TrustedTagTTL {
			x.sendPage(p)
			return
		}
		x.age = 0
	}
	path := "/v2/" + x.res.repository + "/referrers/" + string(x.res.digest)
	p, err := x.list(path, ocispec.MediaTypeImageIndex)
	if err == nil {
		p, err = x.filtered(p)
	}
	if err == nil {
		x.keepReferrers(p)
	} else if inTrouble(err) {
		if kept := x.keptReferrers(); kept != nil {
			kept.stale = true
			p, err = kept, nil
		}
	}
	if err != nil {
		x.fail(answerTo(err, KindReferrers))
		return
	}
	x.sendPage(p)
}

// filtered applies the artifactType of the query where the upstream did not.
func (x *exchange) filtered(p *page) (*page, error) {
	var index struct {
		ocispec.Index
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(p.body, &index); err != nil || index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex {
		return nil, apiErrorf(http.StatusBadGateway, codeUnavailable, "the upstream's list of referrers is not an image index")
	}
	want := x.r.URL.Query().Get("artifactType")
	if want == "" || p.filters != "" {
		return p, nil
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(text json.RawMessage) bool {
		var d ocispec.Descriptor
		return json.Unmarshal(text, &d) != nil || d.ArtifactType != want
	})
	if index.Manifests == nil {
		index.Manifests = []json.RawMessage{}
	}
	body, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	return &page{body: body, contentType: p.contentType, filters: "artifactType", next: p.next}, nil
}

// referrersKey is the index key of the page asked for.
func (x *exchange) referrersKey() index.Key {
	reference := x.res.reference
	if query, e := x.passedQuery(); e == nil && query != "" {
		reference += "?" + query
	}
	return index.Key{
		Scheme: x.target.Scheme, Host: x.target.Host, Repository: x.res.repository,
		Kind: KindReferrers, Reference: reference,
	}
}

// keepReferrers keeps a page under the digest of its bytes.
func (x *exchange) keepReferrers(p *page) {
	if int64(len(p.body)) > x.h.cfg.MaxManifest {
		return
	}
	it := newItem(p.body, digest.FromBytes(p.body))
	now := time.Now()
	link := index.Link{
		Key: x.referrersKey(), Header: map[string]string{"next": p.next, filtersApplied: p.filters}, FetchedAt: now, CheckedAt: now, LastUsed: now,
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: it.digest, Size: int64(len(p.body))},
	}
	old, ok := x.h.parts.Index.Lookup(link.Key)
	if ok && old.Descriptor.Digest == it.digest && now.Sub(old.CheckedAt) < checkedEvery {
		x.h.parts.Index.Touch(link.Key)
		return
	}
	err := x.storeItem(&served{it, ocispec.MediaTypeImageIndex})
	if err == nil {
		err = x.h.parts.Index.Put(link)
	}
	if err != nil {
		x.h.count.notStored.Add(1)
	}
}

// inTrouble reports whether err, of a request to an upstream, says nothing about
// what was asked for but that the upstream does not answer.
func inTrouble(err error) bool {
	if _, ok := errors.AsType[*apiError](err); ok {
		return false
	}
	e, ok := errors.AsType[*statusError](err)
	return !ok || e.Temporary()
}

// keptReferrers returns the kept page if the caller may see the subject; else nil.
func (x *exchange) keptReferrers() *page {
	link, ok := x.h.parts.Index.Lookup(x.referrersKey())
	if !ok {
		return nil
	}
	d, err := x.h.parts.Permit.Check(x.r.Context(), permit.Resource{
		Target: x.target, Repository: x.res.repository, Kind: KindManifest, Reference: x.res.reference,
	}, x.auth, permit.Whole)
	if err != nil || d.Status != http.StatusOK {
		return nil
	}
	c, ok := x.h.parts.Cache.Find(x.origin(), link.Descriptor.Digest)
	if !ok {
		return nil
	}
	defer c.Release()
	if !c.Verified() || !c.Complete() {
		return nil
	}
	it, ok := x.h.promote(c)
	if !ok {
		return nil
	}
	x.age = max(time.Since(link.CheckedAt), 0)
	return &page{
		body: it.body, contentType: ocispec.MediaTypeImageIndex,
		filters: link.Header[filtersApplied], next: link.Header["next"],
	}
}
