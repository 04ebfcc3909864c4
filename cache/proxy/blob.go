package proxy

import (
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// emptyBlob is the digest of no bytes at all, of which the cache keeps nothing.
const emptyBlob digest.Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// blobKey names a blob of an upstream.
type blobKey struct {
	origin string
	digest digest.Digest
}

// blob answers a request for a blob.
func (x *exchange) blob() {
	rng, ranged := x.ranged()
	class := permit.Whole
	if ranged && (rng.first != 0 || rng.last >= 0) {
		class = permit.Range
	}
	d, ok := x.check("", class)
	if !ok {
		return
	}
	if x.h.memory != nil {
		if it := x.h.memory.find(x.res.digest); it != nil {
			x.used(it)
			x.sendItem(it, octetStream, rng, ranged)
			return
		}
	}
	etag := etagOf(x.res.digest)
	if x.precondition(etag) {
		return
	}
	if x.res.digest == emptyBlob {
		x.sendItem(newItem(nil, emptyBlob), octetStream, rng, ranged)
		return
	}
	if x.cachedBlob(rng, ranged) {
		return
	}
	x.fetchedBlob(d.Descriptor, rng, ranged)
}

// ranged returns the range of the blob that is to be answered, if it is one.
func (x *exchange) ranged() (wanted, bool) {
	v := x.r.Header["Range"]
	if len(v) != 1 || x.r.Method != http.MethodGet {
		return wanted{}, false
	}
	rng, ok := parseRange(v[0])
	return rng, ok && ifRange(x.r.Header, x.res.digest)
}

// precondition answers a request whose preconditions settle it.
func (x *exchange) precondition(etag string) bool {
	switch precondition(x.r.Header, etag) {
	case notModified:
		h := x.w.Header()
		h["Etag"] = []string{etag}
		h["Docker-Content-Digest"] = []string{string(x.res.digest)}
		if x.outcome == "" {
			x.outcome = OutcomeRevalidated
		}
		x.begin(http.StatusNotModified)
		return true
	case failed:
		x.fail(apiErrorf(http.StatusPreconditionFailed, codeUnknown, "the content is %s", etag))
		return true
	}
	return false
}

// cachedBlob answers from the cache if all of the blob is there and verified.
func (x *exchange) cachedBlob(rng wanted, ranged bool) bool {
	c, ok := x.h.parts.Cache.Find(x.origin(), x.res.digest)
	if !ok {
		return false
	}
	defer c.Release()
	if !c.Verified() || !c.Complete() {
		return false
	}
	if c.Descriptor().Size <= SmallBlob && x.h.memory != nil {
		it, ok := x.h.promote(c)
		if !ok {
			return false
		}
		x.sendItem(it, octetStream, rng, ranged)
		return true
	}
	win, ok := x.window(c.Descriptor().Size, rng, ranged)
	if !ok {
		return true
	}
	if x.r.Method == http.MethodHead {
		x.hit()
		x.beginBlob(c.Descriptor().Size, win, ranged)
		return true
	}
	return x.sendContent(c, win, ranged)
}

func (x *exchange) hit() {
	if x.outcome == "" {
		x.outcome = OutcomeHit
	}
}

// window applies a range to the size of the blob; if it can not be satisfied
// it answers so and returns false.
func (x *exchange) window(size int64, rng wanted, ranged bool) (window, bool) {
	if !ranged {
		return window{0, size}, true
	}
	win, ok := rng.of(size)
	if !ok {
		e := apiErrorf(http.StatusRequestedRangeNotSatisfiable, codeUnknown, "the blob has %d bytes", size)
		e.header = http.Header{"Content-Range": {"bytes */" + strconv.FormatInt(size, 10)}, "Accept-Ranges": acceptRanges}
		x.fail(e)
	}
	return win, ok
}

// beginBlob writes the headers of a blob, of which win is sent.
func (x *exchange) beginBlob(size int64, win window, ranged bool) {
	h := x.w.Header()
	h["Content-Type"] = octetStream
	h["Content-Length"] = []string{strconv.FormatInt(win.n, 10)}
	h["Docker-Content-Digest"] = []string{string(x.res.digest)}
	h["Etag"] = []string{etagOf(x.res.digest)}
	h["Accept-Ranges"] = acceptRanges
	if ranged {
		h["Content-Range"] = []string{contentRange(win, size)}
		x.begin(http.StatusPartialContent)
		return
	}
	x.begin(http.StatusOK)
}

// fetchedBlob answers with what the cache lacks at least a part of.
func (x *exchange) fetchedBlob(claimed ocispec.Descriptor, rng wanted, ranged bool) {
	src := &source{h: x.h, target: x.target, repository: x.res.repository, digest: x.res.digest, auth: x.auth, size: -1}
	defer src.dropPrimed()
	if x.r.Method == http.MethodGet {
		if !x.h.streamers.enter(x.r.Context()) {
			x.fail(tooMany(x.h.cfg.QueueFor))
			return
		}
		defer x.h.streamers.leave()
	}
	o, err := x.open(src, claimed.Size, rng, ranged)
	if err != nil {
		x.fail(answerTo(err, KindBlob))
		return
	}
	defer o.close()
	x.stream(o, ranged)
}

// stream sends what was opened.
func (x *exchange) stream(o *opened, ranged bool) {
	if o.none {
		x.window(o.size, wanted{first: o.size}, true)
		return
	}
	x.beginBlob(o.size, o.win, ranged)
	if o.reader == nil {
		return
	}
	if _, err := x.Write(o.first); err != nil {
		x.abort()
	}
	var err error
	if o.longer {
		_, err = x.ReadFrom(io.LimitReader(o.reader, o.win.n-x.sent))
	} else {
		_, err = o.reader.WriteTo(x)
	}
	if err != nil || x.sent != o.win.n {
		x.abort()
	}
}

func tooMany(wait interface{ Seconds() float64 }) *apiError {
	e := apiErrorf(http.StatusTooManyRequests, codeTooManyRequests, "too many answers are being sent: come again")
	e.header = http.Header{"Retry-After": {strconv.Itoa(max(1, int(wait.Seconds())))}}
	return e
}
