package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// checkRange reports whether the body of a 2xx response can only be the n bytes
// at off, or begins with them.
func (b *remoteBlob) checkRange(resp *http.Response, n int, off int64) error {
	h := resp.Header
	if enc := h.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return violation(resp, b.name, "body is encoded as %q although that was not asked for", enc)
	}
	if ct := h.Get("Content-Type"); strings.HasPrefix(strings.ToLower(ct), "multipart/byteranges") {
		return violation(resp, b.name, "body is in several parts although one range was asked for")
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		return b.checkPartial(resp, n, off)
	case http.StatusOK:
		return b.checkWhole(resp, n, off)
	}
	return violation(resp, b.name, "unexpected answer to a range request")
}

// checkPartial checks a 206.
func (b *remoteBlob) checkPartial(resp *http.Response, n int, off int64) error {
	start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
	switch {
	case err != nil:
		return violation(resp, b.name, "%w", err)
	case start != off || end != off+int64(n)-1:
		return violation(resp, b.name, "answered bytes %d-%d when asked for %d-%d", start, end, off, off+int64(n)-1)
	case total >= 0 && total != b.desc.Size:
		return violation(resp, b.name, "blob has %d bytes, its descriptor says %d", total, b.desc.Size)
	case resp.ContentLength >= 0 && resp.ContentLength != int64(n):
		return violation(resp, b.name, "body of a range of %d bytes has %d", n, resp.ContentLength)
	}
	return nil
}

// checkWhole checks a 200, whose body is cut off at what is needed.
func (b *remoteBlob) checkWhole(resp *http.Response, n int, off int64) error {
	switch {
	case off != 0:
		return violation(resp, b.name, "Range ignored: the whole blob was answered when asked for %d bytes at %d; "+
			"a registry or proxy without range requests can not serve images lazily", n, off)
	case resp.Header.Get("Content-Range") != "":
		return violation(resp, b.name, "status 200 with Content-Range %q", resp.Header.Get("Content-Range"))
	case resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size:
		return violation(resp, b.name, "blob has %d bytes, its descriptor says %d", resp.ContentLength, b.desc.Size)
	}
	return nil
}

// parseContentRange parses "bytes <start>-<end>/<total>", RFC 9110 section
// 14.4. total is -1 for "*".
func parseContentRange(s string) (start, end, total int64, err error) {
	unit, rest, _ := strings.Cut(s, " ")
	span, size, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	start, ok1 := digits(first)
	end, ok2 := digits(last)
	total, ok3 := digits(size)
	if size == "*" {
		total, ok3 = -1, true
	}
	if !strings.EqualFold(unit, "bytes") || !ok1 || !ok2 || !ok3 || end < start || total >= 0 && end >= total {
		return 0, 0, 0, fmt.Errorf("Content-Range %q is not understood", s)
	}
	return start, end, total, nil
}

// digits parses a number without a sign.
func digits(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}
