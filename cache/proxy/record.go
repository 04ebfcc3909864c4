package proxy

import "time"

// Outcome says where the bytes of an answer came from.
type Outcome string

// Outcomes of requests.
const (
	OutcomeHit         Outcome = "hit"         // all of it was in the cache
	OutcomeMiss        Outcome = "miss"        // nothing of it was
	OutcomePartial     Outcome = "partial"     // a part of it was
	OutcomeRevalidated Outcome = "revalidated" // the client's own copy is still right: 304
	OutcomeStale       Outcome = "stale"       // in the cache, and the upstream did not answer
	OutcomePassed      Outcome = "passed"      // the upstream's own answer: lists, /v2/
	OutcomeDenied      Outcome = "denied"      // the upstream refused the caller, or has no such thing
	OutcomeError       Outcome = "error"       // everything else that is not a success
)

// Kinds of requests.
const (
	KindBase      = "base" // GET /v2/
	KindManifest  = "manifests"
	KindBlob      = "blobs"
	KindTags      = "tags"
	KindReferrers = "referrers"
	KindUnknown   = "unknown" // not of the API, or refused before it was looked at
)

// Record is a request that was answered. It has nothing in it that must not be
// written to a log: neither a credential nor a query.
type Record struct {
	Host       string // as the client sent it
	Upstream   string // host of the upstream, "" if none was found
	Repo       string
	Kind       string
	Reference  string // tag or digest
	Method     string
	Path       string // of the URL, escaped, without the query
	Range      string // "bytes=FIRST-LAST" of an answer that is a part of a blob
	Status     int
	Bytes      int64 // of the body
	Aborted    bool  // the body ended before its end: the connection was cut
	Start      time.Time
	Duration   time.Duration
	Outcome    Outcome
	TagAge     time.Duration // since the upstream was last asked about a tag, if it was served without asking
	UserAgent  string
	RemoteAddr string
}

// Observer is told of requests. It is called in the goroutine of each, in
// parallel, after the answer.
type Observer interface {
	Observe(r Record)
}
