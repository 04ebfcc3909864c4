package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// Doer sends requests upstream. It follows the redirects of a GET, never with
// the Authorization to another host, and none of a HEAD.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
}

// Shared is what replicas of the cache have in common. Who may have what is found out
// before it is asked.
type Shared interface {
	// Source returns a source of a blob of the origin that asks there first, and up
	// for what is not to be had there.
	Source(origin string, desc ocispec.Descriptor, up fill.Source) fill.Source
	// Fetch returns a blob of at most limit bytes that is there, found to be what its
	// digest says.
	Fetch(ctx context.Context, d digest.Digest, limit int64) ([]byte, bool)
	// Verified is told of content that was found right. It does not block.
	Verified(x *cache.Content)
}

// Parts are what a Handler puts together. All are needed but Shared.
type Parts struct {
	Cache    *cache.Cache
	Index    *index.Index
	Fill     *fill.Group
	Routes   *route.Table
	Permit   *permit.Checker
	Upstream Doer
	Shared   Shared // nil: the cache is alone
}

// Manifest is a manifest that is served, for those who want to prepare for the
// requests that follow it.
type Manifest struct {
	Target     route.Target
	Repository string
	Reference  string // that was asked for, tag or digest
	Descriptor ocispec.Descriptor
	Body       []byte // not to be changed

	// Source returns where a blob of the same repository comes from, by the
	// credentials of the caller of the manifest, who must not be made to wait
	// for it.
	Source func(desc ocispec.Descriptor) fill.Source
}

// Handler answers the pull part of the distribution API. Safe for parallel use.
type Handler struct {
	cfg   Config
	parts Parts

	memory    *memory // nil: none
	streamers *streamers
	accepts   accepts
	sizes     sizes
	manifests flights[manifestKey, *served]
	blobs     flights[blobKey, *opened]
	lists     flights[listKey, *page]
	pings     pings
	count     counters
}

// New makes a handler. It starts nothing; parts.Fill and parts.Index must be
// run by the caller.
func New(cfg Config, parts Parts) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuring the proxy: %w", err)
	}
	if parts.Cache == nil || parts.Index == nil || parts.Fill == nil || parts.Routes == nil ||
		parts.Permit == nil || parts.Upstream == nil {
		return nil, errors.New("configuring the proxy: a part is missing")
	}
	cfg = cfg.withDefaults()
	h := &Handler{cfg: cfg, parts: parts, streamers: newStreamers(cfg.Streamers, cfg.QueueFor)}
	if cfg.MemoryBytes > 0 {
		h.memory = newMemory(cfg.MemoryBytes)
	}
	return h, nil
}

// Origin names who content from t belongs to until it is verified, for
// cache.Cache. What comes without TLS is kept apart.
func Origin(t route.Target) string {
	if t.Scheme == "https" {
		return t.Host
	}
	return t.Scheme + "://" + t.Host
}

// Forget drops what is kept of d in memory. The caller drops it from the cache
// first.
func (h *Handler) Forget(d digest.Digest) {
	if h.memory != nil {
		h.memory.forget(d)
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{h: h, w: w, r: r, start: time.Now()}
	h.count.inFlight.Add(1)
	defer x.finish()
	x.serve()
}

func (x *exchange) serve() {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		e := apiErrorf(http.StatusMethodNotAllowed, codeUnsupported,
			"this is a cache for pulling: push to the registry itself")
		e.header = http.Header{"Allow": pullMethods}
		x.fail(e)
		return
	}
	if e := x.parse(); e != nil {
		x.fail(e)
		return
	}
	switch x.res.kind {
	case KindBase:
		x.ping()
	case KindManifest:
		x.manifest()
	case KindBlob:
		x.blob()
	case KindTags:
		x.tags()
	case KindReferrers:
		x.referrers()
	}
}

// parse finds out what is asked for and whom.
func (x *exchange) parse() *apiError {
	path := x.r.URL.Path
	if x.r.URL.RawPath != "" {
		path = x.r.URL.RawPath
	}
	var err error
	if x.res, err = parsePath(path); err != nil {
		x.res = resource{kind: KindUnknown} // nothing of it gets into a record unescaped
	}
	switch {
	case err == nil:
	case errors.Is(err, errBadRepository):
		return apiErrorf(http.StatusBadRequest, codeNameInvalid, "%v", err)
	case errors.Is(err, errBadReference):
		return apiErrorf(http.StatusBadRequest, codeManifestInvalid, "%v", err)
	case errors.Is(err, errBadDigest):
		return apiErrorf(http.StatusBadRequest, codeDigestInvalid, "%v", err)
	default:
		return apiErrorf(http.StatusNotFound, codeUnsupported, "%v", err)
	}
	if x.r.URL.RawQuery != "" {
		q, err := url.ParseQuery(x.r.URL.RawQuery)
		if err != nil || len(q["ns"]) > 1 {
			return apiErrorf(http.StatusBadRequest, codeUnsupported, "the query is not understood")
		}
		x.ns = q.Get("ns")
	}
	if x.target, err = x.h.parts.Routes.Resolve(x.r.Host, x.ns); err != nil {
		x.ns = "" // not repeated to the client
		if errors.Is(err, route.ErrUnknown) {
			return apiErrorf(http.StatusNotFound, codeNameUnknown, "%v", err)
		}
		return apiErrorf(http.StatusBadRequest, codeNameInvalid, "%v", err)
	}
	switch v := x.r.Header["Authorization"]; len(v) {
	case 0:
	case 1:
		x.auth = permit.Secret(v[0])
	default:
		return apiErrorf(http.StatusBadRequest, codeUnauthorized, "more than one Authorization header")
	}
	return nil
}

// check asks for permission. It returns false if there is none, and has
// answered then.
func (x *exchange) check(accept string, class permit.Class) (permit.Decision, bool) {
	d, err := x.h.parts.Permit.Check(x.r.Context(), permit.Resource{
		Target: x.target, Repository: x.res.repository, Kind: x.res.kind, Reference: x.res.reference, Accept: accept,
	}, x.auth, class)
	if err != nil {
		x.fail(answerTo(err, x.res.kind))
		return d, false
	}
	if d.Status != http.StatusOK {
		x.fail(refusal(d.Status, d.Header, d.Body, x.res.kind))
		return d, false
	}
	if d.Stale {
		x.outcome = OutcomeStale
	}
	return d, true
}

// denied ends a permission if err is the upstream's own refusal of a GET.
func (h *Handler) denied(ctx context.Context, r permit.Resource, auth permit.Secret, err error) {
	e, ok := errors.AsType[*statusError](err)
	if !ok || e.host != "" {
		return
	}
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		h.parts.Permit.Denied(ctx, r, auth, e.status)
	}
}

// trusted reports whether upstreams are not asked for permission.
func (h *Handler) trusted() bool { return h.parts.Permit.Policy() == permit.Trusted }

// finish counts and tells the observer, also of answers that were cut off.
func (x *exchange) finish() {
	x.h.count.finished(x)
	if x.h.cfg.Observer != nil {
		x.h.cfg.Observer.Observe(x.record())
	}
}

// counters are what Stats is made of.
type counters struct {
	inFlight   atomic.Int64
	requests   atomic.Uint64
	outcomes   [8]atomic.Uint64 // by outcomeIndex
	bytes      atomic.Uint64
	aborted    atomic.Uint64
	badContent atomic.Uint64
	notStored  atomic.Uint64
}
