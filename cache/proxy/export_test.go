package proxy

import "net/http"

// Parsers, for tests.
var (
	ContentRange = contentRange
	LinkTo       = linkTo
	PassableBody = passableBody
)

// ParsePath returns what a path names.
func ParsePath(path string) (kind, repository, reference string, err error) {
	r, err := parsePath(path)
	return r.kind, r.repository, r.reference, err
}

// ParseRange returns the window that a Range header wants of size bytes. ok is
// false if the header is ignored.
func ParseRange(header string, size int64) (off, n int64, satisfiable, ok bool) {
	w, ok := parseRange(header)
	if !ok {
		return 0, 0, false, false
	}
	win, satisfiable := w.of(size)
	return win.off, win.n, satisfiable, true
}

// RewriteRange returns the Range header that upstreams are asked with.
func RewriteRange(header string) (string, bool) {
	w, ok := parseRange(header)
	return w.header(), ok
}

// ParseContentRange returns what a Content-Range header says.
func ParseContentRange(header string) (off, n, size int64, ok bool) {
	win, size, ok := parseContentRange(header)
	return win.off, win.n, size, ok
}

// Precondition returns the status that conditional headers settle a request with
// for an entity tag, or 0.
func Precondition(h http.Header, etag string) int {
	switch precondition(h, etag) {
	case notModified:
		return http.StatusNotModified
	case failed:
		return http.StatusPreconditionFailed
	}
	return 0
}

// TypedAs returns the media type that a document is served with.
func TypedAs(text, contentType string) (string, error) {
	d, err := parseDocument([]byte(text))
	if err != nil {
		return "", err
	}
	return d.typed(contentType)
}

// CanonicalAccept returns the canonical form of Accept headers.
func CanonicalAccept(values ...string) string { return new(accepts).canonical(values) }

// NextPage returns the query of the next page of a list.
func NextPage(h http.Header, path string) string { return nextPage(h, path) }

// Window makes a window.
func Window(off, n int64) window { return window{off, n} } //nolint:revive // for ContentRange
