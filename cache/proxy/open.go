package proxy

import (
	"errors"
	"io"
	"net/http"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
)

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
	case x.r.Method == http.MethodHead, x.h.parts.Shared != nil:
		// Other replicas may have the rest, or fetch it.
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
	if x.h.parts.Shared != nil && !src.ignores {
		src.closePrimed() // it was for the size, and would keep a worker from others
	}
	return x.openSized(src, key, src.size, rng, ranged)
}

// firstRead is how much is read before the headers go out, so that what fails at
// once is an error and not a broken answer.
const firstRead = 32 << 10

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
	o.reader = x.h.parts.Fill.Reader(x.r.Context(), o.content, x.shared(src), o.win.off, o.win.n)
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
	whole.reader = x.h.parts.Fill.Reader(x.r.Context(), whole.content, x.shared(src), 0, o.size)
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
