package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// mirrors is a hosts.toml with two mirrors before the registry.
const mirrors = `
server = "http://registry.test"

[host."http://down.test"]
  capabilities = ["pull"]

[host."http://mirror.test"]
  capabilities = ["pull"]
  [host."http://mirror.test".header]
    X-Team = "blue"
`

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestMirrors(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		root := t.TempDir()
		hostConfig(t, root, "registry.test", mirrors)
		mirror := n.serve(t, "mirror.test", content(data))
		reg := n.serve(t, "registry.test", content(data))
		b := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data)
		for range 10 {
			mustRead(t, b, data)
		}
		if len(mirror.seen()) != 10 || len(reg.seen()) != 0 {
			t.Errorf("%d requests to the mirror, %d to the registry", len(mirror.seen()), len(reg.seen()))
		}
		r := mirror.seen()[0]
		if r.URL.Query().Get("ns") != "registry.test" || r.Header.Get("X-Team") != "blue" {
			t.Errorf("mirror was asked %s with header %v", r.URL, r.Header)
		}
		// The first mirror was dialled once, and again when some time had
		// passed.
		down := func() (k int) {
			for _, h := range n.dialled {
				if h == "down.test" {
					k++
				}
			}
			return k
		}
		if got := down(); got != 1 {
			t.Errorf("the dead mirror was dialled %d times", got)
		}
		time.Sleep(6 * time.Second)
		mustRead(t, b, data)
		mustRead(t, b, data)
		if got := down(); got != 2 {
			t.Errorf("the dead mirror was dialled %d times", got)
		}
		n.serve(t, "down.test", content(data)) // it comes back
		time.Sleep(11 * time.Second)
		mustRead(t, b, data)
		mustRead(t, b, data)
		if got := len(mirror.seen()); got != 12 {
			t.Errorf("%d requests to the second mirror although the first is back", got)
		}
	})
}

// TestMirrorsFail checks what every host's failure makes of a read.
func TestMirrorsFail(t *testing.T) {
	data := pattern(100)
	for name, c := range map[string]struct {
		mirror, registry http.HandlerFunc
		want             []string
		permanent        bool
	}{
		"mirror lacks it":     {status(404), content(data), nil, false},
		"mirror is private":   {status(403), content(data), nil, false},
		"mirror is wrong":     {status(200), content(data), nil, false},
		"mirror cuts short":   {cut(data), content(data), nil, false},
		"all lack it":         {status(404), status(404), []string{"registry.test: 404", "mirror.test: 404", "down.test"}, false},
		"registry is down":    {status(404), status(503), []string{"503", "404"}, false},
		"registry refuses it": {status(404), status(403), []string{"403", "check the credentials"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			root := t.TempDir()
			hostConfig(t, root, "registry.test", mirrors)
			n.serve(t, "mirror.test", c.mirror)
			n.serve(t, "registry.test", c.registry)
			b := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data)
			if c.want == nil {
				mustRead(t, b, data)
				return
			}
			_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
			if err == nil {
				t.Fatal("no error")
			}
			text := strings.ReplaceAll(err.Error(), "registry.test/team/app@"+descriptor(data).Digest.String()+": ", "")
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("error %q does not say %q", text, w)
				}
			}
			if blob.IsPermanent(err) != c.permanent {
				t.Errorf("permanent: %v", blob.IsPermanent(err))
			}
			var re *registry.Error
			if !errors.As(err, &re) || re.Host != "registry.test" {
				t.Errorf("the registry's own answer does not come first: %v", err)
			}
		})
	}
}

// cut answers half of what it promises.
func cut(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 20-29/100")
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data[20:25])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestHostConfigChanges(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		root := t.TempDir()
		path := filepath.Join(root, "registry.test", "hosts.toml")
		a, b2 := n.serve(t, "a.test", content(data)), n.serve(t, "b.test", content(data))
		write := func(text string, at time.Time) {
			hostConfig(t, root, "registry.test", text)
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
			time.Sleep(11 * time.Second)
		}
		b := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data)
		write(`server = "http://a.test"`, time.Unix(1, 0))
		mustRead(t, b, data)
		write(`server = "http://b.test"`, time.Unix(2, 0))
		mustRead(t, b, data)
		write(`server = not toml`, time.Unix(3, 0))
		mustRead(t, b, data) // by the last good one
		if len(a.seen()) != 1 || len(b2.seen()) != 2 {
			t.Errorf("%d and %d requests", len(a.seen()), len(b2.seen()))
		}
	})
}

func TestBrokenHostConfig(t *testing.T) {
	root := t.TempDir()
	hostConfig(t, root, "registry.test", "[host\n")
	n := newNet()
	n.serve(t, "registry.test", content(pattern(100)))
	_, err := open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", pattern(100)).ReadAt(t.Context(), make([]byte, 1), 0)
	if err == nil || !strings.Contains(err.Error(), "hosts.toml") || len(n.dialled) != 0 {
		t.Errorf("error %v, connections to %v", err, n.dialled)
	}
}

func TestDockerHub(t *testing.T) {
	data := pattern(100)
	n := newNet()
	hub := n.serve(t, "registry-1.docker.io", basic("u", "p", content(data)))
	path := filepath.Join(t.TempDir(), "config.json")
	writeFile(t, path, dockerAuth("https://index.docker.io/v1/", "u:p"), 0o600)
	c := client(t, registry.Config{DialContext: n.dial, PlainHTTP: []string{"docker.io"}, DockerConfig: path})
	b, err := c.Open("redis:7", descriptor(data))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.ReadAt(t.Context(), make([]byte, 1), 0)
	// containerd speaks TLS to Docker Hub whatever is configured; that it
	// was dialled is what can be seen here.
	if err == nil || !slices.Contains(n.dialled, "registry-1.docker.io") || len(hub.seen()) != 0 {
		t.Errorf("error %v, connections to %v", err, n.dialled)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, cfg := range []registry.Config{
		{ConnectTimeout: -1}, {IdleTimeout: -1}, {ResponseHeaderTimeout: -1}, {MaxConnsPerHost: -1},
		{PlainHTTP: []string{"http://x"}}, {Insecure: []string{""}}, {PlainHTTP: []string{"a/b"}},
		{Retry: blob.RetryConfig{Attempts: -1}},
	} {
		if _, err := registry.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	for _, host := range []string{"a", "a.b:80", "[::1]:5000", "127.0.0.1"} {
		if err := (registry.Config{PlainHTTP: []string{host}}).Validate(); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// TestClientCertificates checks that a host gets the certificate its hosts.toml
// names, and where it redirects to does not.
func TestClientCertificates(t *testing.T) {
	data := pattern(100)
	root := t.TempDir()
	var seen atomic.Int64
	ask := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			seen.Add(int64(len(r.TLS.PeerCertificates)))
			next(w, r)
		}
	}
	start := func(h http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(ask(h))
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	store := start(content(data))
	reg := start(redirect(store.URL + "/data"))
	host := strings.TrimPrefix(reg.URL, "https://")
	hostConfig(t, root, host, fmt.Sprintf("server = %q\nca = \"ca.pem\"\nclient = \"client.pem\"\n", reg.URL))
	dir := filepath.Join(root, dirName(host))
	writeFile(t, filepath.Join(dir, "ca.pem"),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reg.Certificate().Raw})), 0o600)
	writeFile(t, filepath.Join(dir, "client.pem"), clientPair(t), 0o600)
	b := open(t, client(t, registry.Config{HostsDir: root}), host, data)
	mustRead(t, b, data)
	if got := seen.Load(); got != 1 {
		t.Errorf("the certificate was shown %d times, want to the registry only", got)
	}
}

// clientPair returns a certificate and its key.
func clientPair(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
