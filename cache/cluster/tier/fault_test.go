package tier_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

// patience is long enough for a server on this machine and short for a test.
const patience = 4 * time.Second

func newImpatient(t *testing.T, s tier.Store) *tier.Tier {
	t.Helper()
	l, err := tier.New(s, tier.Config{Secret: secret, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Whatever S3 does to answers, what is read is right or an error, and when it has
// recovered the tier has too.
func TestReadingFromABrokenS3(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server)
	store := newS3(t, proxy.Endpoint)
	b := newBlob(1<<20, 1)
	put(t, newTier(t, store), b, 1)
	read := func(l *tier.Tier) ([]byte, error) { return drain(t, l, b, b.object(1)) }
	for _, c := range []struct {
		name  string
		fault s3test.Fault
		want  error // nil: any
		away  bool
	}{
		{"500", s3test.Fault{Status: 500}, nil, true},
		{"503", s3test.Fault{Status: 503}, nil, true},
		{"slow down", s3test.Fault{Status: 503, Code: "SlowDown"}, nil, true},
		{"403", s3test.Fault{Status: 403}, nil, true},
		{"no bucket", s3test.Fault{Status: 404, Code: "NoSuchBucket"}, nil, true},
		{"404 of a proxy", s3test.Fault{Status: 404}, nil, true},
		{"404 of a proxy in HTML", s3test.Fault{Status: 404, Body: "<html><body>default backend</body></html>"}, nil, true},
		{"416 of a proxy", s3test.Fault{Status: 416}, nil, true},
		{"archived", s3test.Fault{Status: 403, Code: "InvalidObjectState"}, tier.ErrUnreadable, false},
		{"reset", s3test.Fault{Reset: true}, nil, true},
		{"reset in the body", s3test.Fault{Reset: true, Bytes: 300_000}, nil, true},
		{"truncated", s3test.Fault{Truncate: true, Bytes: 300_000}, io.ErrUnexpectedEOF, true},
		{"truncated to nothing", s3test.Fault{Truncate: true}, io.ErrUnexpectedEOF, true},
		{"stall", s3test.Fault{Stall: true}, tier.ErrSilent, true},
		{"stall in the body", s3test.Fault{Stall: true, Bytes: 300_000}, tier.ErrSilent, true},
		{"flip", s3test.Fault{Flip: true, Bytes: 300_000}, tier.ErrDamaged, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newImpatient(t, store)
			proxy.Break(c.fault)
			defer proxy.Heal()
			got, err := read(l)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the error is %v", err)
			}
			if !bytes.HasPrefix(b.data, got) {
				t.Errorf("%d wrong bytes", len(got))
			}
			if s := l.Stats(); s.Reading.Away != c.away {
				t.Errorf("stats are %+v", s)
			}
			proxy.Heal()
			for {
				got, err := read(l)
				if errors.Is(err, tier.ErrAway) {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				if err != nil || !bytes.Equal(got, b.data) {
					t.Errorf("after it has recovered: %d bytes: %v", len(got), err)
				}
				break
			}
		})
	}
	t.Run("slow", func(t *testing.T) {
		proxy.Break(s3test.Fault{Slow: 20 * time.Millisecond})
		defer proxy.Heal()
		if got, err := read(newImpatient(t, store)); err != nil || !bytes.Equal(got, b.data) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
	})
}

func TestWritingToABrokenS3(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server)
	store := newS3(t, proxy.Endpoint)
	for i, c := range []struct {
		name   string
		fault  s3test.Fault
		stored bool
	}{
		{"503 twice", s3test.Fault{Status: 503, Times: 2}, true},
		{"503 in a part", s3test.Fault{Status: 503, Times: 1, Methods: []string{"PUT"}}, true},
		{"reset once", s3test.Fault{Reset: true, Times: 1}, true},
		{"403", s3test.Fault{Status: 403}, false},
		{"500 always in a part", s3test.Fault{Status: 500, Methods: []string{"PUT"}}, false},
	} {
		for _, size := range []int{100_000, 20 << 20} {
			t.Run(c.name, func(t *testing.T) {
				l, b := newTier(t, store), newBlob(size, uint64(i))
				proxy.Break(c.fault)
				defer proxy.Heal()
				err := l.Put(t.Context(), b.digest, b.object(1), bytes.NewReader(b.data))
				proxy.Heal()
				// A request whose answer was lost is repeated, and finds the object there.
				if (err == nil || errors.Is(err, fs.ErrExist)) != c.stored {
					t.Fatal(err)
				}
				if l.Stats().Writing.Away == c.stored {
					t.Errorf("stats are %+v", l.Stats())
				}
				o, found, err := l.Find(t.Context(), b.digest)
				if found != c.stored || err != nil {
					t.Fatalf("found %+v, %v: %v", o, found, err)
				}
				if !found {
					return
				}
				if got, err := drain(t, l, b, o); err != nil || !bytes.Equal(got, b.data) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
			})
		}
	}
}

// What a proxy says without asking the server is not believed of Remove and Put either.
func TestAnswersThatAreNotS3s(t *testing.T) {
	proxy := s3test.NewProxy(t, s3test.Start(t))
	store, b := newS3(t, proxy.Endpoint), newBlob(1000, 1)
	put(t, newTier(t, store), b, 1)
	for _, status := range []int{http.StatusNotFound, http.StatusPreconditionFailed} {
		for _, body := range []string{"", "<html></html>"} {
			l := newTier(t, store)
			proxy.Break(s3test.Fault{Status: status, Body: body})
			if err := l.Remove(t.Context(), b.digest, 1); err == nil || !l.Stats().Writing.Away {
				t.Errorf("removing, with %d: %v, %+v", status, err, l.Stats())
			}
			l = newTier(t, store)
			err := l.Put(t.Context(), b.digest, b.object(2), bytes.NewReader(b.data))
			if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("putting, with %d: %v", status, err)
			}
			proxy.Heal()
		}
	}
	if got, err := read(t, newTier(t, store), b, 1, 0, 1000); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("the object is not there any more: %v", err)
	}
}

// A large object is complete after all its bytes were taken and its reader was read to
// the end, which is when a longer wait begins.
func TestS3ReadsToTheEndBeforeItCompletes(t *testing.T) {
	proxy := s3test.NewProxy(t, s3test.Start(t))
	store, data := newS3(t, proxy.Endpoint), newBlob(40<<20, 1).data
	before, atEnd := proxy.Requests(), int64(0)
	r := io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) {
		atEnd = proxy.Requests() - before
		return 0, io.EOF
	}))
	if err := store.Create(t.Context(), someName, r, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if all := proxy.Requests() - before; atEnd != 4 || all != 5 { // a beginning, three parts, a completion
		t.Errorf("the end was read after %d of %d requests", atEnd, all)
	}
}

// A server that stands still is away, not waited for by each.
func TestFrozenS3(t *testing.T) {
	server := s3test.Start(t)
	l, b := newImpatient(t, newS3(t, server.Endpoint)), newBlob(1000, 1)
	put(t, l, b, 1)
	server.Freeze()
	if _, err := drain(t, l, b, b.object(1)); !errors.Is(err, tier.ErrSilent) {
		t.Errorf("reading: %v", err)
	}
	if _, _, err := l.Find(t.Context(), b.digest); !errors.Is(err, tier.ErrAway) {
		t.Errorf("reading again: %v", err)
	}
	server.Thaw()
	for {
		_, found, err := l.Find(t.Context(), b.digest)
		if err == nil && found {
			return
		}
		if !errors.Is(err, tier.ErrAway) {
			t.Fatalf("found %v: %v", found, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A bucket that is not there is not a blob that is not there.
func TestNoBucket(t *testing.T) {
	cfg := s3Config(s3test.Start(t).Endpoint)
	cfg.Bucket = "nobody"
	store, err := tier.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := newBlob(1000, 1)
	if _, err := drain(t, newTier(t, store), b, b.object(1)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening: %v", err)
	}
	if _, _, err := newTier(t, store).Find(t.Context(), b.digest); err == nil {
		t.Error("finding: no error")
	}
	cfg = s3Config(cfg.Endpoint)
	cfg.SecretKey = "wrong"
	if store, err = tier.NewS3(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := drain(t, newTier(t, store), b, b.object(1)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with a wrong key: %v", err)
	}
}

// A reader that is left while the server stalls says so, and the store is not away.
func TestReaderIsLeft(t *testing.T) {
	proxy := s3test.NewProxy(t, s3test.Start(t))
	l, b := newTier(t, newS3(t, proxy.Endpoint)), newBlob(1<<20, 1)
	put(t, l, b, 1)
	for _, after := range []int64{0, 300_000} {
		proxy.Break(s3test.Fault{Stall: true, Bytes: after})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := l.Open(ctx, b.digest, b.object(1), 0, b.object(1).Size)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) || l.Stats().Reading.Away {
			t.Errorf("after %d bytes: %v, %+v", after, err, l.Stats())
		}
		cancel()
		proxy.Heal()
	}
}

// Reading ends with its context in stores that do not know of that.
func TestReaderEndsWithItsContext(t *testing.T) {
	store, _ := newDir(t)
	l, b := newTier(t, store), newBlob(10*chunk, 1)
	put(t, l, b, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := l.Open(ctx, b.digest, b.object(1), 0, b.object(1).Size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) || l.Stats().Reading.Away {
		t.Errorf("%v, %+v", err, l.Stats())
	}
}

// A server that does not know conditions is written to without, after its first no.
func TestS3WithoutConditions(t *testing.T) {
	proxy := s3test.NewProxy(t, s3test.Start(t))
	store := newS3(t, proxy.Endpoint)
	data := newBlob(1000, 1).data
	proxy.Break(s3test.Fault{Status: 501, Code: "NotImplemented", Times: 1})
	if err := store.Create(t.Context(), someName, bytes.NewReader(data), 1000); err == nil {
		t.Fatal("no error")
	}
	for range 2 { // the second would fail with a condition
		create(t, store, someName, data)
	}
}

// A server that answers with something else than what was asked is not believed.
func TestS3WithoutRanges(t *testing.T) {
	b, m := newBlob(3*chunk, 1), newMemory()
	put(t, newTier(t, m), b, 1)
	object := m.objects[objectName(b, 1)]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(object)))
		_, _ = w.Write(object)
	}))
	defer server.Close()
	l := newTier(t, newS3(t, strings.TrimPrefix(server.URL, "http://")))
	if got, err := drain(t, l, b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("all of it: %d bytes: %v", len(got), err)
	}
	if got, err := read(t, l, b, 1, 0, 10); err != nil || !bytes.Equal(got, b.data[:10]) {
		t.Errorf("the beginning: %d bytes: %v", len(got), err)
	}
	if got, err := read(t, l, b, 1, chunk, 10); err == nil {
		t.Errorf("a part: %d bytes", len(got))
	}
}

// With TLS the server's certificate counts, credentials may come from the environment,
// and the region from the server.
func TestS3OverTLS(t *testing.T) {
	server := s3test.Start(t)
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: server.Endpoint})
		r.Out.Host = r.In.Host
	}})
	defer front.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
	cfg := tier.S3Config{Endpoint: strings.TrimPrefix(front.URL, "https://"), Bucket: s3test.Bucket}
	b := newBlob(20<<20, 1)
	for _, trusted := range []bool{false, true} {
		if trusted {
			cfg.CA = x509.NewCertPool()
			cfg.CA.AddCert(front.Certificate())
		}
		store, err := tier.NewS3(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l := newTier(t, store)
		err = l.Put(t.Context(), b.digest, b.object(1), bytes.NewReader(b.data))
		if (err == nil) != trusted {
			t.Fatalf("trusted is %v: %v", trusted, err)
		}
		got, err := drain(t, l, b, b.object(1))
		if (err == nil) != trusted || trusted && !bytes.Equal(got, b.data) {
			t.Errorf("trusted is %v: %d bytes: %v", trusted, len(got), err)
		}
	}
}
