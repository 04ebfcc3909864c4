package transport

import (
	"io"
	"net/http"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

type staller struct {
	next  http.RoundTripper
	limit time.Duration
}

// Stall cuts off requests whose body, in either direction, does not move for
// the time limit. The clock runs only while somebody waits for the network: a
// slow reader of a response, or a slow source of an upload, is no stall.
func Stall(next http.RoundTripper, limit time.Duration) http.RoundTripper {
	return &staller{next, limit}
}

// RoundTrip implements http.RoundTripper.
func (t *staller) RoundTrip(r *http.Request) (*http.Response, error) {
	w := stall.New(r.Context(), t.limit)
	r = r.WithContext(w.Context())
	if r.Body != nil && r.Body != http.NoBody {
		// Both directions may be under way together: a clock each.
		r.Body = &upload{r.Body, w.Beside()}
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		w.End()
		return nil, w.Explain(err)
	}
	resp.Body = &download{resp.Body, w}
	return resp, nil
}

// download watches a response body.
type download struct {
	io.ReadCloser
	w *stall.Watch
}

// Read implements io.Reader.
func (b *download) Read(p []byte) (int, error) {
	b.w.Start()
	n, err := b.ReadCloser.Read(p)
	b.w.Stop()
	if err == io.EOF { //nolint:errorlint // a body ends with it as it is
		b.w.End()
	} else if err != nil {
		err = b.w.Explain(err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *download) Close() error {
	err := b.ReadCloser.Close()
	b.w.End()
	return err
}

// upload watches a request body: the network has it from the end of one Read to
// the begin of the next.
type upload struct {
	io.ReadCloser
	w *stall.Watch
}

// Read implements io.Reader.
func (b *upload) Read(p []byte) (int, error) {
	b.w.Stop()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.w.Start()
	}
	return n, err
}

// Close implements io.Closer.
func (b *upload) Close() error {
	b.w.Stop()
	return b.ReadCloser.Close()
}

// CloseIdleConnections implements what http.Client expects.
func (t *staller) CloseIdleConnections() { CloseIdle(t.next) }
