package registry_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/stall"
	"github.com/reprise-containers/reprise/remote/registry"
)

// within runs f under synctest's clock.
func within(t *testing.T, f func(t *testing.T, n *fakeNet)) {
	synctest.Test(t, func(t *testing.T) {
		// After everything else: http.Server lingers on connections for
		// half a second.
		t.Cleanup(func() { time.Sleep(time.Second) })
		f(t, newNet())
	})
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"17": 17 * time.Second,
		// synctest's clock starts at midnight UTC 2000-01-01.
		"Sat, 01 Jan 2000 00:00:20 GMT": 20 * time.Second,
		"Sat, 01 Jan 1999 00:00:20 GMT": 0,
		"soon":                          0,
		"-5":                            0,
	} {
		within(t, func(t *testing.T, n *fakeNet) {
			data := pattern(100)
			calls := 0
			n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
				if calls++; calls == 1 {
					w.Header().Set("Retry-After", header)
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				content(data)(w, r)
			})
			b := blob.Retry(open(t, n.client(t, registry.Config{}), "registry.test", data),
				blob.RetryConfig{Base: time.Millisecond, Max: time.Millisecond})
			start := time.Now()
			if _, err := b.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < want || took > want+time.Millisecond {
				t.Errorf("Retry-After %q: back after %s", header, took)
			}
		})
	}
}

func TestServerErrorThenFine(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		calls := 0
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			if calls++; calls < 4 {
				http.Error(w, "oops", http.StatusInternalServerError)
				return
			}
			content(data)(w, r)
		})
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		_, err := b.ReadAt(t.Context(), make([]byte, 100), 0)
		var re *registry.Error
		if !errors.As(err, &re) || re.Status != 500 || !errors.Is(err, errdefs.ErrUnavailable) || calls != 1 {
			t.Errorf("one read made %d requests, error %v", calls, err)
		}
		p := make([]byte, 100)
		if _, err := blob.Retry(b, blob.RetryConfig{}).ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Error(err)
		}
	})
}

func TestHangBeforeHead(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		n.serve(t, "registry.test", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		b := open(t, n.client(t, registry.Config{ResponseHeaderTimeout: 7 * time.Second}), "registry.test", pattern(100))
		start := time.Now()
		_, err := b.ReadAt(t.Context(), make([]byte, 100), 0)
		if err == nil || blob.IsPermanent(err) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestHangInBody(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-99/100")
			w.WriteHeader(http.StatusPartialContent)
			for i := range 40 {
				w.Write(data[i : i+1]) // slow is not stalled
				w.(http.Flusher).Flush()
				time.Sleep(2 * time.Second)
			}
			<-r.Context().Done()
		})
		b := open(t, n.client(t, registry.Config{IdleTimeout: 9 * time.Second}), "registry.test", data)
		start := time.Now()
		got, err := b.ReadAt(t.Context(), make([]byte, 100), 0)
		var stalled *stall.Error
		if !errors.As(err, &stalled) || blob.IsPermanent(err) || got != 40 {
			t.Errorf("%d bytes, error %v", got, err)
		}
		if took := time.Since(start); took != 78*time.Second+9*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestHangEndsWithTheReader(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-99/100")
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		b := open(t, n.client(t, registry.Config{}), "registry.test", pattern(100))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := b.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestUploadStall(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(1 << 20)
		release := make(chan struct{})
		defer close(release)
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodHead:
				w.WriteHeader(http.StatusNotFound)
			case http.MethodPost:
				w.Header().Set("Location", "/upload")
				w.WriteHeader(http.StatusAccepted)
			default:
				<-release // and take nothing
			}
		})
		c := n.client(t, registry.Config{IdleTimeout: 9 * time.Second, Retry: blob.RetryConfig{Attempts: 1, Base: 1}})
		err := c.Push(t.Context(), "registry.test/team/app:1", descriptor(data), bytes.NewReader(data))
		var stalled *stall.Error
		if !errors.As(err, &stalled) {
			t.Errorf("error %v", err)
		}
	})
}

// TestErrorsKeepSecrets looks for what signs URLs, and for credentials, in
// error texts.
func TestErrorsKeepSecrets(t *testing.T) {
	data := pattern(100)
	const secret = "s3cr3tsignature"
	n := newNet()
	n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://store.test/blob?X-Amz-Signature="+secret, http.StatusTemporaryRedirect)
	})
	n.serve(t, "store.test", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "denied: http://store.test/blob?X-Amz-Signature="+secret+
			" Bearer "+secret+" https://user:"+secret+"@store.test/ "+strings.Repeat("long ", 1000), http.StatusForbidden)
	})
	n.serve(t, "lost.test", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://nowhere.test/blob?X-Amz-Signature="+secret, http.StatusTemporaryRedirect)
	})
	c := n.client(t, registry.Config{})
	for host, want := range map[string]string{"registry.test": "denied", "lost.test": "nowhere.test"} {
		_, err := open(t, c, host, data).ReadAt(t.Context(), make([]byte, 100), 0)
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), want) || len(err.Error()) > 600 {
			t.Errorf("%s: error %v", host, err)
		}
	}
}

func FuzzExcerpt(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"no"}]}`))
	f.Add([]byte("<Error>\x00\xff</Error>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if e := registry.Excerpt(body); len(e) > 203 || strings.ContainsAny(e, "\n\r\t\x00") {
			t.Errorf("%q", e)
		}
	})
}

func TestOpenUsesNoNetwork(t *testing.T) {
	n := newNet()
	c := n.client(t, registry.Config{})
	b := open(t, c, "registry.test", pattern(10))
	if b.Size() != 10 || len(n.dialled) != 0 {
		t.Errorf("size %d, connections to %v", b.Size(), n.dialled)
	}
	for _, ref := range []string{"", "UPPER", "http://x/y", "host/../y", "a b"} {
		if _, err := c.Open(ref, descriptor(nil)); err == nil {
			t.Errorf("reference %q is accepted", ref)
		}
	}
	bad := descriptor(nil)
	bad.Size = -1
	if _, err := c.Open("x/y", bad); err == nil {
		t.Error("a negative size is accepted")
	}
	bad = descriptor(nil)
	bad.Digest = "sha256:../../x"
	if _, err := c.Open("x/y", bad); err == nil {
		t.Error("a bad digest is accepted")
	}
}
