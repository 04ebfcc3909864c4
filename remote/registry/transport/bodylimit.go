package transport

import (
	"fmt"
	"io"
	"net/http"
)

type bodyLimit struct {
	next  http.RoundTripper
	limit int64
}

// BodyLimit makes reads of response bodies fail after limit bytes. It is for
// answers that are decoded without a look at their size.
func BodyLimit(next http.RoundTripper, limit int64) http.RoundTripper {
	return &bodyLimit{next, limit}
}

// RoundTrip implements http.RoundTripper.
func (t *bodyLimit) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil {
		resp.Body = &limitedBody{resp.Body, t.limit, t.limit}
	}
	return resp, err
}

type limitedBody struct {
	io.ReadCloser
	left, limit int64
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("response has more than %d bytes", b.limit)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// CloseIdleConnections implements what http.Client expects.
func (t *bodyLimit) CloseIdleConnections() { CloseIdle(t.next) }
