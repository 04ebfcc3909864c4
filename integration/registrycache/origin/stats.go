package origin

import (
	"maps"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Count is what was asked of one blob.
type Count struct {
	// Heads and Gets are requests, Bytes body bytes that were sent.
	Heads, Gets int
	Bytes       int64
}

// Stats counts what has been asked.
type Stats struct {
	// Heads and Gets count requests of manifests and blobs, Tokens those of
	// tokens, Denied those answered 401 or 403.
	Heads, Gets, Tokens, Denied int
	// Manifests counts GETs of manifests.
	Manifests int
	// Bytes counts body bytes of blobs, from the API and from storage.
	Bytes int64
	// Leaks counts requests to storage that carried credentials.
	Leaks int
	// InFlight and MaxInFlight count GETs of blobs at one time.
	InFlight, MaxInFlight int
	// Blobs counts per blob.
	Blobs map[digest.Digest]Count
}

// Request is what is remembered of a request.
type Request struct {
	Method, URI, Host, Range string
	// Authorized says that it carried credentials.
	Authorized bool
	// Status is that of the answer, 0 while there is none.
	Status int
}

// Stats returns the counts since the start or Reset.
func (o *Origin) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Blobs = maps.Clone(s.Blobs)
	return s
}

// Requests returns the requests since the start or Reset, at most the last
// few thousand.
func (o *Origin) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// Reset sets all counts to zero.
func (o *Origin) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats = Stats{InFlight: o.stats.InFlight, Blobs: map[digest.Digest]Count{}}
	o.seen = nil
}

// maxSeen bounds what is remembered.
const maxSeen = 8192

func (o *Origin) note(r *http.Request, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) >= maxSeen {
		o.seen = slices.Delete(o.seen, 0, maxSeen/2)
	}
	o.seen = append(o.seen, Request{
		Method: r.Method, URI: r.URL.RequestURI(), Host: r.Host, Range: r.Header.Get("Range"),
		Authorized: r.Header.Get("Authorization") != "", Status: status,
	})
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		o.stats.Denied++
	}
}

// count changes the counts of a blob.
func (o *Origin) count(d digest.Digest, change func(*Stats, *Count)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.stats.Blobs[d]
	change(&o.stats, &c)
	o.stats.Blobs[d] = c
}
