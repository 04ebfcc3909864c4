package transport_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob/stall"
	"github.com/reprise-containers/reprise/remote/registry/transport"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// body is a response body whose reads take their time, or until the request is
// cancelled.
type body struct {
	r    *http.Request
	wait []time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.wait) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(b.wait[0]):
		b.wait = b.wait[1:]
		p[0] = 'x'
		return 1, nil
	case <-b.r.Context().Done():
		return 0, b.r.Context().Err()
	}
}

func (b *body) Close() error { return nil }

func TestStallDownload(t *testing.T) {
	for _, c := range []struct {
		wait []time.Duration
		n    int
		ok   bool
	}{
		{[]time.Duration{9 * time.Second, 9 * time.Second, 9 * time.Second}, 3, true},
		{[]time.Duration{9 * time.Second, 11 * time.Second}, 1, false},
		{nil, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			rt := transport.Stall(roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{Body: &body{r, c.wait}}, nil
			}), 10*time.Second)
			resp, err := rt.RoundTrip(httptest.NewRequest("GET", "/", nil))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // a reader that is busy elsewhere is no stall
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Body.Close()
			var stalled *stall.Error
			if len(got) != c.n || (err == nil) != c.ok || errors.As(err, &stalled) == c.ok {
				t.Errorf("%v: %d bytes, %v", c.wait, len(got), err)
			}
		})
	}
}

func TestStallUpload(t *testing.T) {
	for _, pause := range []time.Duration{9 * time.Second, 11 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			rt := transport.Stall(roundTripper(func(r *http.Request) (*http.Response, error) {
				for {
					if _, err := r.Body.Read(make([]byte, 1)); err != nil {
						r.Body.Close()
						time.Sleep(time.Hour) // the answer may take its time
						return &http.Response{Body: http.NoBody}, r.Context().Err()
					}
					select {
					case <-time.After(pause):
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
				}
			}), 10*time.Second)
			_, err := rt.RoundTrip(httptest.NewRequest("PUT", "/", strings.NewReader("three")))
			var stalled *stall.Error
			if slow := pause > 10*time.Second; errors.As(err, &stalled) != slow || (err != nil) != slow {
				t.Errorf("pauses of %s: %v", pause, err)
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	rt := transport.BodyLimit(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100)))}, nil
	}), 50)
	resp, err := rt.RoundTrip(httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if len(got) != 50 || err == nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
