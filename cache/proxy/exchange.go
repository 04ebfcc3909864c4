package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// exchange is one request and its answer.
type exchange struct {
	h      *Handler
	w      http.ResponseWriter
	r      *http.Request
	res    resource
	target route.Target
	ns     string // upstream that the client named, "" if it did not
	auth   permit.Secret
	start  time.Time

	status  int
	sent    int64 // bytes of the body
	aborted bool
	outcome Outcome
	age     time.Duration
}

// origin is who the content belongs to until it is verified.
func (x *exchange) origin() string { return Origin(x.target) }

// Values of headers that are in many answers; not to be changed.
var (
	apiVersion   = []string{"registry/2.0"}
	acceptRanges = []string{"bytes"}
	octetStream  = []string{"application/octet-stream"}
	jsonType     = []string{"application/json; charset=utf-8"}
	noSniff      = []string{"nosniff"}
	pullMethods  = []string{"GET, HEAD"}
)

// extend gives the client WriteTimeout from now to take what is written next.
func (x *exchange) extend() {
	d, ok := x.w.(interface{ SetWriteDeadline(time.Time) error })
	if !ok {
		// Behind a wrapper: ResponseController looks through those.
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.h.cfg.WriteTimeout))
		return
	}
	_ = d.SetWriteDeadline(time.Now().Add(x.h.cfg.WriteTimeout))
}

// begin writes the status and the headers that all answers have.
func (x *exchange) begin(status int) {
	h := x.w.Header()
	if x.res.kind != KindBlob { // where nobody looks for it
		h["Docker-Distribution-Api-Version"] = apiVersion
	}
	if x.ns != "" {
		h["Oci-Namespace"] = []string{x.ns}
	}
	if v := cacheStatus[x.outcome]; v != nil {
		h["Cache-Status"] = v
	}
	x.status = status
	x.extend()
	x.w.WriteHeader(status)
}

// cacheStatus is what clients are told of where an answer comes from, RFC 9211.
var cacheStatus = map[Outcome][]string{
	OutcomeHit:         {"registry-cache; hit"},
	OutcomeRevalidated: {"registry-cache; hit"},
	OutcomeStale:       {"registry-cache; hit; detail=stale"},
	OutcomeMiss:        {"registry-cache; fwd=miss"},
	OutcomePartial:     {"registry-cache; fwd=partial"},
}

// fail answers with an error, which nothing was written before.
func (x *exchange) fail(e *apiError) {
	body := e.document()
	h := x.w.Header()
	for name, v := range e.header {
		h[name] = v
	}
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	switch {
	case x.outcome != "":
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden, e.status == http.StatusNotFound:
		x.outcome = OutcomeDenied
	default:
		x.outcome = OutcomeError
	}
	x.begin(e.status)
	x.write(body)
}

// write sends p, unless the answer is one to a HEAD. That the client does not
// take it is its own affair.
func (x *exchange) write(p []byte) {
	if x.r.Method == http.MethodHead {
		return
	}
	for first := true; len(p) > 0; first = false {
		if !first { // begin has given time for it
			x.extend()
		}
		n, err := x.w.Write(p[:min(len(p), piece)])
		x.sent += int64(n)
		if err != nil {
			x.aborted = true
			return
		}
		p = p[n:]
	}
}

// admit gives an answer of n bytes from memory its place among the bodies that are
// sent at a time, unless it is a small one. If there is none it answers so and
// returns nil; else leave must be called.
func (x *exchange) admit(n int) (leave func()) {
	switch {
	case n <= SmallBlob, x.r.Method == http.MethodHead:
		return func() {}
	case x.h.streamers.enter(x.r.Context()):
		return x.h.streamers.leave
	}
	x.fail(tooMany(x.h.cfg.QueueFor))
	return nil
}

// Write implements io.Writer for bodies that come bit by bit: each bit has the
// whole of WriteTimeout, and small ones do not wait for more.
func (x *exchange) Write(p []byte) (int, error) {
	const buffered = 8 << 10 // more than net/http keeps back
	x.extend()
	n, err := x.w.Write(p)
	x.sent += int64(n)
	if err == nil && len(p) < buffered {
		err = http.NewResponseController(x.w).Flush()
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that what comes from a file is sent by the
// kernel: piece by piece, each of which has the whole of WriteTimeout.
func (x *exchange) ReadFrom(r io.Reader) (total int64, err error) {
	// Not through a wrapper, which would hide that it can send a file.
	to, ok := x.w.(io.ReaderFrom)
	if !ok {
		to = copier{x.w}
	}
	for {
		part := &io.LimitedReader{R: r, N: piece}
		all, ok := r.(*io.LimitedReader) // more than one around a file hides it too
		if ok {
			part.R, part.N = all.R, min(piece, all.N)
		}
		want := part.N
		x.extend()
		n, err := to.ReadFrom(part)
		x.sent += n
		total += n
		if ok {
			all.N -= n
		}
		if err != nil || n < want || ok && all.N == 0 {
			return total, err
		}
	}
}

// abort ends an answer of which the headers are out in a way that no client
// takes for its end: the connection is cut.
func (x *exchange) abort() {
	x.aborted = true
	if x.outcome == "" || x.outcome == OutcomeHit {
		x.outcome = OutcomeError
	}
	panic(http.ErrAbortHandler)
}

// sentRange returns the range that was answered with, "" if it was the whole.
func (x *exchange) sentRange() string {
	if x.status != http.StatusPartialContent {
		return ""
	}
	v := x.w.Header()["Content-Range"]
	if len(v) == 0 {
		return ""
	}
	rng, _, _ := strings.Cut(strings.TrimPrefix(v[0], "bytes "), "/")
	return "bytes=" + rng
}

// record is what the observer is told.
func (x *exchange) record() Record {
	kind := x.res.kind
	if kind == "" {
		kind = KindUnknown
	}
	path := x.r.URL.Path
	if kind == KindUnknown || x.r.URL.RawPath != "" {
		path = x.r.URL.EscapedPath()
	}
	return Record{
		Range: x.sentRange(),
		Host:  x.r.Host, Upstream: x.target.Host, Repo: x.res.repository, Kind: kind, Reference: x.res.reference,
		Method: x.r.Method, Path: path, Status: x.status, Bytes: x.sent, Aborted: x.aborted,
		Start: x.start, Duration: time.Since(x.start), Outcome: x.outcome, TagAge: x.age,
		UserAgent: x.r.UserAgent(), RemoteAddr: x.r.RemoteAddr,
	}
}
