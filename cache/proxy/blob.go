package proxy

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
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

// opened is a blob of which the size is known and a fetch may be under way.
type opened struct {
	content *cache.Content
	reader  *fill.Reader // nil for a HEAD
	first   []byte       // read from it already
	size    int64
	win     window
	longer  bool // the reader goes on after the window
	none    bool // the range can not be satisfied; nothing was opened
}

func (o *opened) close() {
	if o.reader != nil {
		o.reader.Close()
	}
	if o.content != nil {
		o.content.Release()
	}
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

// open opens the blob, after finding out its size if need be. claimed is what
// the upstream said of it to this caller; it is believed for what belongs to the
// upstream only.
func (x *exchange) open(src *source, claimed int64, rng wanted, ranged bool) (*opened, error) {
	key := blobKey{x.origin(), x.res.digest}
	size := claimed
	if size <= 0 {
		size = x.h.knownSize(key)
	}
	if size > 0 {
		return x.openSized(src, key, size, rng, ranged)
	}
	// The answer to the request that finds out is the fetch that the others
	// join, so they wait until it has begun.
	mine := false
	o, err := x.h.blobs.do(x.r.Context(), key, task[*opened]{
		who: string(x.auth),
		found: func() (*opened, bool) {
			size = x.h.knownSize(key)
			return nil, size > 0
		},
		work: func() (*opened, error) {
			mine = true
			return x.prime(src, key, rng, ranged)
		},
		usable: func(*opened) bool { return false }, // but its size is known now
	})
	if err != nil || mine {
		return o, err
	}
	return x.openSized(src, key, size, rng, ranged)
}

// prime asks the upstream for what the client asks for, and so for the size.
func (x *exchange) prime(src *source, key blobKey, rng wanted, ranged bool) (*opened, error) {
	header := ""
	switch {
	case x.r.Method == http.MethodHead:
		header = "bytes=0-0"
	case ranged:
		header = rng.header()
	}
	err := src.prime(x.r.Context(), header)
	if e, ok := errors.AsType[*statusError](err); ok && e.status == http.StatusRequestedRangeNotSatisfiable {
		err = src.prime(x.r.Context(), "bytes=0-0")
	}
	if err != nil {
		return nil, err
	}
	x.h.sizes.put(key, src.size)
	return x.openSized(src, key, src.size, rng, ranged)
}

// firstRead is how much is read before the headers go out, so that what fails at
// once is an error and not a broken answer.
const firstRead = 32 << 10

var firstBuffers = sync.Pool{New: func() any { return new([firstRead]byte) }}

// openSized opens what is wanted of a blob of size bytes and waits for the first
// of it.
func (x *exchange) openSized(src *source, key blobKey, size int64, rng wanted, ranged bool) (*opened, error) {
	src.size = size
	o := &opened{size: size, win: window{0, size}}
	if ranged {
		var ok bool
		if o.win, ok = rng.of(size); !ok {
			o.none = true
			return o, nil
		}
	}
	if x.r.Method == http.MethodHead {
		x.outcomeIs(OutcomeMiss)
		return o, nil
	}
	var err error
	if o.content, err = x.h.hold(key, size); err != nil {
		return nil, err
	}
	x.outcomeOf(o)
	if o.content.Descriptor().Size != size { // verified since, of another size than was claimed
		x.h.sizes.drop(key)
		o.close()
		return x.openSized(src, key, o.content.Descriptor().Size, rng, ranged)
	}
	o.reader = x.h.parts.Fill.Reader(x.r.Context(), o.content, src, o.win.off, o.win.n)
	if err := o.readFirst(); err != nil {
		o.close()
		if errors.Is(err, errNoRanges) {
			return x.openWhole(src, key, o)
		}
		if errors.Is(err, fill.ErrMismatch) {
			x.h.sizes.drop(key)
			x.h.count.badContent.Add(1)
		}
		return nil, err
	}
	return o, nil
}

// readFirst reads the beginning of the body, all of it if it is short.
func (o *opened) readFirst() error {
	o.first = make([]byte, min(o.win.n, firstRead))
	n, err := o.reader.Read(o.first)
	o.first = o.first[:n]
	if n > 0 || err == io.EOF { //nolint:errorlint // as io.Reader has it
		return nil
	}
	return err
}

// openWhole is for an upstream without range requests: the whole blob is
// fetched, once for all, and the client gets its window of it.
func (x *exchange) openWhole(src *source, key blobKey, o *opened) (*opened, error) {
	whole := &opened{size: o.size, win: o.win, longer: true}
	var err error
	if whole.content, err = x.h.hold(key, o.size); err != nil {
		return nil, err
	}
	src.skips = true
	whole.reader = x.h.parts.Fill.Reader(x.r.Context(), whole.content, src, 0, o.size)
	_, err = io.CopyN(io.Discard, whole.reader, o.win.off)
	if err == nil {
		err = whole.readFirst()
	}
	if err != nil {
		whole.close()
		return nil, err
	}
	return whole, nil
}

func (x *exchange) outcomeIs(o Outcome) {
	if x.outcome == "" {
		x.outcome = o
	}
}

// outcomeOf says what of the window is held before it is read.
func (x *exchange) outcomeOf(o *opened) {
	held, until := o.content.Extent(o.win.off, o.win.off+o.win.n)
	switch whole := until >= o.win.off+o.win.n; {
	case held && whole:
		x.outcomeIs(OutcomeHit)
	case whole:
		x.outcomeIs(OutcomeMiss)
	default:
		x.outcomeIs(OutcomePartial)
	}
}

// hold returns the content of a blob, made if need be. If the upstream once
// stated another size for it, what was kept of that is of no use.
func (h *Handler) hold(key blobKey, size int64) (*cache.Content, error) {
	desc := ocispec.Descriptor{MediaType: octetStream[0], Digest: key.digest, Size: size}
	c, err := h.parts.Cache.Hold(key.origin, desc)
	if err == nil {
		return c, nil
	}
	old, ok := h.parts.Cache.Find(key.origin, key.digest)
	if !ok {
		return nil, err
	}
	defer old.Release()
	if old.Descriptor().Size == size {
		return nil, err
	}
	if old.Verified() {
		return h.parts.Cache.Hold(key.origin, old.Descriptor())
	}
	if err := old.Drop(false); err != nil {
		return nil, err
	}
	return h.parts.Cache.Hold(key.origin, desc)
}

// knownSize returns the size of a blob that the cache or an answer of this
// upstream tells, or 0.
func (h *Handler) knownSize(key blobKey) int64 {
	if c, ok := h.parts.Cache.Find(key.origin, key.digest); ok {
		defer c.Release()
		return c.Descriptor().Size
	}
	return h.sizes.get(key)
}

// sizes remembers what upstreams that redirect say of the size of blobs that
// are not in the cache yet. The zero value is ready to use.
type sizes struct {
	mu sync.Mutex
	m  map[blobKey]int64
}

const maxSizes = 4096

func (s *sizes) get(key blobKey) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key]
}

func (s *sizes) put(key blobKey, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxSizes {
		s.m = make(map[blobKey]int64)
	}
	s.m[key] = size
}

func (s *sizes) drop(key blobKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
}

// used tells the engine, now and then, that what is served from memory is in
// use.
func (x *exchange) used(it *item) {
	const every = 10 // seconds
	now, last := x.start.Unix(), it.touched.Load()
	if now-last < every && now >= last || !it.touched.CompareAndSwap(last, now) {
		return
	}
	if c, ok := x.h.parts.Cache.Find(x.origin(), it.digest); ok {
		c.Used(int64(len(it.body)))
		c.Release()
	}
}

// promote brings verified content into memory, after looking whether the disk
// still has it right. It reports false, and drops the content, if not.
func (h *Handler) promote(c *cache.Content) (*item, bool) {
	desc := c.Descriptor()
	body := make([]byte, desc.Size)
	if n, _ := c.ReadAt(body, 0); n < len(body) {
		return nil, false // the upstream has it
	}
	if digest.FromBytes(body) != desc.Digest {
		h.count.badContent.Add(1)
		if err := c.Drop(true); err != nil {
			h.count.notStored.Add(1)
		}
		return nil, false
	}
	it := newItem(body, desc.Digest)
	if h.memory != nil {
		h.memory.keep(it)
	}
	return it, true
}

func newItem(body []byte, d digest.Digest) *item {
	return &item{
		body: body, digest: d, etag: []string{etagOf(d)}, digestHeader: []string{string(d)},
		length: []string{strconv.Itoa(len(body))},
	}
}

func tooMany(wait interface{ Seconds() float64 }) *apiError {
	e := apiErrorf(http.StatusTooManyRequests, codeTooManyRequests, "too many answers are being sent: come again")
	e.header = http.Header{"Retry-After": {strconv.Itoa(max(1, int(wait.Seconds())))}}
	return e
}

// sourceOf returns where a blob comes from by a caller's credentials.
func (x *exchange) sourceOf(desc ocispec.Descriptor) fill.Source {
	return &source{
		h: x.h, target: x.target, repository: x.res.repository, digest: desc.Digest, auth: x.auth, size: desc.Size,
	}
}
