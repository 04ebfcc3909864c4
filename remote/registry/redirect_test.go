package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"encoding/pem"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	}
}

// basic wraps h with a user name and password.
func basic(user, secret string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if u, s, ok := r.BasicAuth(); !ok || u != user || s != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

func login(user, secret string) func(string) (string, string, error) {
	return func(string) (string, string, error) { return user, secret, nil }
}

// TestRedirect checks what another host gets to see, and that further reads go
// there at once.
func TestRedirect(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(1000)
		reg := n.serve(t, "registry.test", basic("u", "p", redirect("http://store.test/data?sig=1")))
		store := n.serve(t, "store.test", func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			content(data)(w, r)
		})
		b := open(t, n.client(t, registry.Config{Credentials: login("u", "p")}), "registry.test", data)
		for i := range 3 {
			p := make([]byte, 10)
			if _, err := b.ReadAt(t.Context(), p, int64(100*i)); err != nil || !bytes.Equal(p, data[100*i:100*i+10]) {
				t.Fatalf("read %d: %v", i, err)
			}
		}
		if got := len(reg.seen()); got != 2 { // 401, redirect
			t.Errorf("%d requests to the registry, want 2", got)
		}
		if got := len(store.seen()); got != 3 {
			t.Errorf("%d requests to the store, want 3", got)
		}
		for _, r := range store.seen() {
			for _, h := range []string{"Authorization", "Cookie"} {
				if v := r.Header.Get(h); v != "" {
					t.Errorf("%s %q was sent to another host", h, v)
				}
			}
			if got := r.Header.Get("Referer"); !strings.HasPrefix(got, "http://registry.test/v2/team/app/blobs/sha256:") {
				t.Errorf("Referer %q", got)
			}
		}
		time.Sleep(5*time.Minute + time.Second)
		if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
		if got := len(reg.seen()); got != 3 {
			t.Errorf("%d requests to the registry after the target's time, want 3", got)
		}
	})
}

// TestRedirectExpires has signed targets end before they say so, and be left in
// time when they say when.
func TestRedirectExpires(t *testing.T) {
	data := pattern(1000)
	for _, status := range []int{401, 403, 404, 410} {
		within(t, func(t *testing.T, n *fakeNet) {
			var valid atomic.Int64
			reg := n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
				redirect(fmt.Sprintf("http://store.test/%d", valid.Load()))(w, r)
			})
			n.serve(t, "store.test", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != fmt.Sprintf("/%d", valid.Load()) {
					http.Error(w, "expired", status)
					return
				}
				content(data)(w, r)
			})
			b := open(t, n.client(t, registry.Config{}), "registry.test", data)
			for i := range int64(3) {
				valid.Store(i)
				for range 2 {
					if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
						t.Fatalf("after %d: %v", status, err)
					}
				}
			}
			if got := len(reg.seen()); got != 3 {
				t.Errorf("%d requests to the registry, want 3", got)
			}
		})
	}
	for name, query := range map[string]string{
		"S3":         "X-Amz-Date=20000101T000000Z&X-Amz-Expires=90",
		"Google":     "X-Goog-Date=20000101T000000Z&X-Goog-Expires=90",
		"CloudFront": "Expires=946684890",
		"Azure":      "se=2000-01-01T00%3A01%3A30Z",
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(t *testing.T, n *fakeNet) {
				reg := n.serve(t, "registry.test", redirect("http://store.test/?"+query))
				n.serve(t, "store.test", content(data))
				b := open(t, n.client(t, registry.Config{}), "registry.test", data)
				for _, want := range []int{1, 1, 2} { // at 0 s, 50 s, 100 s
					if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
						t.Fatal(err)
					}
					if got := len(reg.seen()); got != want {
						t.Errorf("%d requests to the registry, want %d", got, want)
					}
					time.Sleep(50 * time.Second)
				}
			})
		})
	}
}

func TestBusyTargetIsNotAskedTwice(t *testing.T) {
	n := newNet()
	data := pattern(100)
	var busy atomic.Bool
	reg := n.serve(t, "registry.test", redirect("http://store.test/"))
	store := n.serve(t, "store.test", func(w http.ResponseWriter, r *http.Request) {
		if busy.Load() {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		content(data)(w, r)
	})
	b := open(t, n.client(t, registry.Config{}), "registry.test", data)
	b.ReadAt(t.Context(), make([]byte, 10), 0)
	busy.Store(true)
	_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
	var re *registry.Error
	if !errors.As(err, &re) || re.RetryAfter() != 3*time.Second || !re.Temporary() {
		t.Errorf("error %v", err)
	}
	if len(reg.seen()) != 1 || len(store.seen()) != 2 {
		t.Errorf("%d and %d requests", len(reg.seen()), len(store.seen()))
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	data := pattern(100)
	var hops atomic.Int64
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"to itself": {redirect("http://registry.test/v2/team/app/blobs/" + descriptor(data).Digest.String()), "circle"},
		"in a circle": {func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/a":
				redirect("/b")(w, r)
			case "/b":
				redirect("http://store.test/a")(w, r)
			default:
				redirect("/a")(w, r)
			}
		}, "http://registry.test/a -> http://registry.test/b -> http://store.test/a -> http://registry.test/b"},
		"for ever": {func(w http.ResponseWriter, r *http.Request) {
			redirect(fmt.Sprintf("/%d", hops.Add(1)))(w, r)
		}, "more than 10"},
		"nowhere":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) }, "without a Location"},
		"to a file":  {redirect("file:///etc/passwd"), "no http address"},
		"to garbage": {redirect("http://%zz/"), "address that is none"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.serve(t, "registry.test", c.h)
			n.serve(t, "store.test", redirect("http://registry.test/b"))
			b := open(t, n.client(t, registry.Config{}), "registry.test", data)
			_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
			if err == nil || !strings.Contains(err.Error(), c.want) || !blob.IsPermanent(err) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
}

// tlsServer starts a TLS server and writes its CA into a host directory of its
// own below root, whose hosts.toml ends with extra.
func tlsServer(t *testing.T, root, extra string, h http.HandlerFunc) (host string) {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	host = strings.TrimPrefix(s.URL, "https://")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	hostConfig(t, root, host, fmt.Sprintf("server = %q\nca = \"ca.pem\"\n%s", s.URL, extra))
	if err := os.WriteFile(filepath.Join(root, dirName(host), "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return host
}

func dirName(host string) string { return strings.Replace(host, ":", "_", 1) + "_" }

// hostConfig writes the hosts.toml of host.
func hostConfig(t *testing.T, root, host, text string) {
	dir := filepath.Join(root, host)
	if strings.Contains(host, ":") {
		dir = filepath.Join(root, dirName(host))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	data := pattern(1000)
	root := t.TempDir()
	var proto atomic.Value
	host := tlsServer(t, root, "", func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		content(data)(w, r)
	})
	p := make([]byte, 10)
	if _, err := open(t, client(t, registry.Config{HostsDir: root}), host, data).ReadAt(t.Context(), p, 100); err != nil || !bytes.Equal(p, data[100:110]) {
		t.Error(err)
	}
	if proto.Load() != "HTTP/2.0" {
		t.Errorf("protocol %v", proto.Load())
	}
	// Without the CA: refused, for good, with what to do.
	hostConfig(t, root, host, fmt.Sprintf("server = \"https://%s\"\n", host))
	_, err := open(t, client(t, registry.Config{HostsDir: root}), host, data).ReadAt(t.Context(), p, 100)
	if err == nil || !strings.Contains(err.Error(), "hosts.toml") || !blob.IsPermanent(err) {
		t.Errorf("unknown CA: %v", err)
	}
	// Nor is the other host's word good enough when checking is on.
	insecure := client(t, registry.Config{Insecure: []string{"127.0.0.1"}})
	if _, err := open(t, insecure, host, data).ReadAt(t.Context(), p, 100); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func TestRedirectDowngradeIsRefused(t *testing.T) {
	data := pattern(1000)
	plain := serve(t, content(data))
	root := t.TempDir()
	host := tlsServer(t, root, "", redirect("http://"+plain+"/data"))
	_, err := open(t, client(t, registry.Config{HostsDir: root}), host, data).ReadAt(t.Context(), make([]byte, 10), 0)
	if err == nil || !strings.Contains(err.Error(), "from https to http") || !blob.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
}

func TestPlainAnswerToTLS(t *testing.T) {
	data := pattern(10)
	host := serve(t, content(data))
	root := t.TempDir()
	hostConfig(t, root, host, fmt.Sprintf("server = \"https://%s\"\n", host))
	_, err := open(t, client(t, registry.Config{HostsDir: root}), host, data).ReadAt(t.Context(), make([]byte, 10), 0)
	if err == nil || !strings.Contains(err.Error(), "plain http") {
		t.Errorf("error %v", err)
	}
}
