package proxy

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// condition is what became of a request's preconditions.
type condition int

const (
	proceed     condition = iota
	notModified           // 304: the client has it
	failed                // 412: the client wants another one
)

// precondition evaluates If-Match and If-None-Match, RFC 9110 section 13.2.2,
// for content whose entity tag is etag, with its quotes. Dates are ignored:
// there is no Last-Modified that they could be of.
func precondition(h http.Header, etag string) condition {
	if v := h["If-Match"]; v != nil && !matches(v, etag, false) {
		return failed
	}
	if v := h["If-None-Match"]; v != nil && matches(v, etag, true) {
		return notModified
	}
	return proceed
}

// ifRange reports whether a Range header counts: it does without an If-Range,
// and with one that names this very content. Dates never do.
func ifRange(h http.Header, d digest.Digest) bool {
	v := h["If-Range"]
	return v == nil || len(v) == 1 && strings.Trim(v[0], " \t") == etagOf(d)
}

// matches reports whether a list of entity tags has etag or is "*". Weak tags
// count only if weak.
func matches(values []string, etag string, weak bool) bool {
	for _, v := range values {
		for v != "" {
			v = strings.TrimLeft(v, " \t,")
			if strings.HasPrefix(v, "*") {
				return true
			}
			isWeak := strings.HasPrefix(v, "W/")
			v = strings.TrimPrefix(v, "W/")
			if !strings.HasPrefix(v, `"`) {
				break // not a list of entity tags
			}
			end := strings.IndexByte(v[1:], '"')
			if end < 0 {
				break
			}
			if v[:end+2] == etag && (weak || !isWeak) {
				return true
			}
			v = v[end+2:]
		}
	}
	return false
}
