package permit

import (
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// Resource is what is asked for.
type Resource struct {
	Target     route.Target
	Repository string
	Kind       string // "manifests" or "blobs"
	Reference  string // tag or digest
	// Accept is the Accept header to ask with; several values are one with
	// commas.
	Accept string
}

// Class is the class of a request for a blob.
type Class int

// Classes: how long a permission counts differs.
const (
	Whole Class = iota // of a blob, or a manifest: Config.TTL, Config.ManifestTTL
	Range              // part of a blob: Config.RangeTTL
)

// Decision is an answer. What it refers to is shared and must not be changed.
type Decision struct {
	// Status is 200 if the caller may have the resource, else what the upstream
	// answered.
	Status int
	// Header has what of a refusal is to be passed on: WWW-Authenticate,
	// Retry-After and the rate limits.
	Header http.Header
	// Body is that of a refusal, up to 64 KiB; a HEAD has none.
	Body []byte
	// Descriptor is what the upstream says of the resource. Digest is the
	// reference if that is a digest, else what the upstream says, "" if
	// nothing; Size is -1 if not known (a redirect).
	Descriptor ocispec.Descriptor

	Cached  bool // from an earlier answer
	Stale   bool // from an earlier answer because there was none now
	Trusted bool // the upstream was not asked, by Config.Policy
}

// Allowed reports whether the caller may have the resource.
func (d Decision) Allowed() bool { return d.Status == http.StatusOK }
