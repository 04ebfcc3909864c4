package peer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/peer"
)

var secret = []byte(strings.Repeat("s", 32))

// provider gives what a function says.
type provider func(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error)

func (p provider) Provide(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error) {
	return p(ctx, r)
}

func identity(t testing.TB, secret []byte) *peer.Identity {
	t.Helper()
	i, err := peer.NewIdentity(secret)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// serve serves p and returns where.
func serve(t testing.TB, secret []byte, p provider) string {
	t.Helper()
	s := httptest.NewUnstartedServer(peer.Handler(p))
	l := s.Listener
	s.Listener = tls.NewListener(l, identity(t, secret).Server())
	s.Config.ErrorLog = nil
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String()
}

func client(t testing.TB, secret []byte, stall time.Duration) *peer.Client {
	t.Helper()
	c := peer.NewClient(identity(t, secret), stall)
	t.Cleanup(c.Close)
	return c
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB

func whole(_ context.Context, r peer.Request) (io.ReadCloser, int64, error) {
	end := r.End
	if end < 0 {
		end = int64(len(content))
	}
	return io.NopCloser(bytes.NewReader(content[r.Off:end])), int64(len(content)), nil
}

func TestBlob(t *testing.T) {
	var asked peer.Request
	at := serve(t, secret, func(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error) {
		asked = r
		return whole(ctx, r)
	})
	c := client(t, secret, time.Minute)
	for _, want := range []peer.Request{
		{Digest: digest.FromBytes(content), End: -1},
		{Origin: "http://127.0.0.1:5000/?&", Digest: digest.FromBytes(content), Off: 17, End: 700_001},
	} {
		a, err := c.Open(t.Context(), at, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		end := want.End
		if end < 0 {
			end = int64(len(content))
		}
		if !bytes.Equal(got, content[want.Off:end]) || a.Size != int64(len(content)) {
			t.Errorf("%+v: %d bytes of a blob of %d", want, len(got), a.Size)
		}
		if asked != want {
			t.Errorf("asked for %+v, not %+v", asked, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, want := range []error{peer.ErrNothing, peer.ErrNotThere} {
		at := serve(t, secret, func(context.Context, peer.Request) (io.ReadCloser, int64, error) {
			return nil, 0, fmt.Errorf("looking: %w", want)
		})
		_, err := client(t, secret, time.Minute).Open(t.Context(), at, peer.Request{Digest: digest.FromString("x"), End: -1})
		if !errors.Is(err, want) {
			t.Errorf("%v instead of %v", err, want)
		}
	}
	at := serve(t, secret, func(context.Context, peer.Request) (io.ReadCloser, int64, error) {
		return nil, 0, errors.New("broken")
	})
	_, err := client(t, secret, time.Minute).Open(t.Context(), at, peer.Request{Digest: digest.FromString("x"), End: -1})
	if err == nil || errors.Is(err, peer.ErrNothing) || errors.Is(err, peer.ErrNotThere) {
		t.Errorf("a failure is %v", err)
	}
}

// Who does not know the secret neither asks nor answers.
func TestStrangers(t *testing.T) {
	other := []byte(strings.Repeat("o", 32))
	asked := false
	at := serve(t, secret, func(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error) {
		asked = true
		return whole(ctx, r)
	})
	want := peer.Request{Digest: digest.FromBytes(content), End: -1}
	if _, err := client(t, other, time.Minute).Open(t.Context(), at, want); !errors.Is(err, peer.ErrStranger) {
		t.Errorf("one with another secret got %v", err)
	}
	// Without any certificate, and not looking at the server's.
	plain := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // it is an attacker
	if resp, err := plain.Get("https://" + at + "/v1/blob/" + string(want.Digest) + "?off=0&end=-1"); err == nil {
		resp.Body.Close()
		t.Errorf("one without a certificate got %s", resp.Status)
	}
	if asked {
		t.Error("a stranger was given something")
	}
}

// An answer that ends is one thing, one that breaks off another.
func TestEnds(t *testing.T) {
	part := content[:300_000]
	for name, after := range map[string]error{"ends": io.EOF, "breaks": errors.New("the disk failed")} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, secret, func(context.Context, peer.Request) (io.ReadCloser, int64, error) {
				r := io.MultiReader(bytes.NewReader(part), readerFunc(func([]byte) (int, error) { return 0, after }))
				return io.NopCloser(r), int64(len(content)), nil
			})
			a, err := client(t, secret, time.Minute).Open(t.Context(), at, peer.Request{Digest: digest.FromBytes(content), End: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			got, err := io.ReadAll(a)
			if (err == nil) != (after == io.EOF) {
				t.Errorf("it ends with %v", err)
			}
			if !bytes.HasPrefix(content, got) || err == nil && len(got) != len(part) {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// One that sends nothing is given up.
func TestStalls(t *testing.T) {
	at := serve(t, secret, func(ctx context.Context, _ peer.Request) (io.ReadCloser, int64, error) {
		stuck := readerFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:1000]), stuck)), int64(len(content)), nil
	})
	a, err := client(t, secret, 50*time.Millisecond).Open(t.Context(), at, peer.Request{Digest: digest.FromBytes(content), End: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	got, err := io.ReadAll(a)
	if !errors.Is(err, peer.ErrStalled) || len(got) != 1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Who is slow to read does not lose a peer that sends.
func TestSlowReader(t *testing.T) {
	at := serve(t, secret, whole)
	const stall = 200 * time.Millisecond
	a, err := client(t, secret, stall).Open(t.Context(), at, peer.Request{Digest: digest.FromBytes(content), End: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := io.ReadFull(a, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * stall)
	if got, err := io.ReadAll(a); err != nil || len(got) != len(content)-1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := client(t, secret, time.Minute).Open(t.Context(), l.Addr().String(), peer.Request{Digest: digest.FromString("x"), End: -1}); err == nil {
		t.Error("nobody answers")
	}
}

// FuzzRequest has the handler parse what a peer asks for: it provides what makes sense
// only.
func FuzzRequest(f *testing.F) {
	f.Add("sha256:"+strings.Repeat("0", 64), "origin=a&off=0&end=-1")
	f.Add("sha256:"+strings.Repeat("0", 64), "off=5&end=3")
	f.Add("x", "off=9223372036854775808&end=0")
	f.Fuzz(func(t *testing.T, d, query string) {
		h := peer.Handler(provider(func(_ context.Context, r peer.Request) (io.ReadCloser, int64, error) {
			if r.Digest.Validate() != nil || r.Off < 0 || r.End < -1 || r.End >= 0 && r.End <= r.Off {
				t.Errorf("it provides %+v", r)
			}
			return nil, 0, peer.ErrNothing
		}))
		r := httptest.NewRequest(http.MethodGet, "http://x/v1/blob/x", nil)
		r.URL.Path = "/v1/blob/" + d
		r.URL.RawQuery = query
		h.ServeHTTP(httptest.NewRecorder(), r)
	})
}
