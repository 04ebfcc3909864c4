package registrycache_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// trap is an address that nobody may connect to.
type trap struct {
	address string
	caught  atomic.Int32
}

func setTrap(t *testing.T, address string) *trap {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	tr := &trap{address: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tr.caught.Add(1)
			c.Close()
		}
	}()
	return tr
}

func (tr *trap) empty(t *testing.T) {
	t.Helper()
	if n := tr.caught.Load(); n != 0 {
		t.Errorf("%d connections were made to %s", n, tr.address)
	}
}

// TestClosedWorld names hosts that the operator did not, by way of ns and Host:
// they are unknown, and nothing is dialled.
func TestClosedWorld(t *testing.T) {
	tr := setTrap(t, "127.0.0.3:0")
	r := begin(t, nil)
	blob := origin.Random(50, 1000)
	r.up.AddBlob("a/b", blob)
	path := "a/b/blobs/" + blob.Digest.String()
	for _, ns := range []string{
		tr.address, "evil.example", "localhost", "169.254.169.254", "[::1]:80", "docker.io", "docker.io@" + tr.address, "docker.io%2f" + tr.address,
		"docker.io%23." + tr.address, "..", "%00", "http://" + tr.address,
	} {
		target := r.target("")
		target.Query = "ns=" + strings.NewReplacer("/", "%2F", "@", "%40").Replace(ns)
		r.refused(target, path, nil, 400, 403, 404)
	}
	tr.empty(t)
}

// TestHostRules routes by Host: what no rule matches leads nowhere when there is
// no default, and a rule matches the whole name.
func TestHostRules(t *testing.T) {
	up, err := origin.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	blob := origin.Random(51, 1000)
	up.AddBlob("a/b", blob)
	_, port, _ := net.SplitHostPort(up.Address)
	listed := net.JoinHostPort("localhost", port)
	r := &rig{trial: trial{t: t, ctx: t.Context(), up: up}}
	r.cache = startCache(t.Context(), t, instance.Config{Values: values{"server": values{
		"registries":    values{listed: values{"host": listed, "scheme": "http"}},
		"upstreamRules": []values{{"regex": `^(.+)\.mirror\.test:7000$`, "host": "$group1:" + port, "scheme": "http"}},
	}}})
	path := "a/b/blobs/" + blob.Digest.String()
	for host, want := range map[string]int{
		"localhost.mirror.test:7000":              http.StatusOK,
		"LocalHost.Mirror.Test:7000":              http.StatusOK,
		"localhost.mirror.test":                   http.StatusNotFound,
		"localhostXmirror.test:7000":              http.StatusNotFound,
		"evil.localhost.mirror.test:7000":         http.StatusNotFound,
		"localhost.mirror.test:7000.evil.example": http.StatusNotFound,
		"elsewhere.mirror.test:7000":              http.StatusNotFound, // not in the list
		"other.test":                              http.StatusNotFound,
	} {
		target := r.target("")
		target.Host = host
		resp, _, err := target.Get(r.ctx, path, nil)
		if err != nil {
			t.Errorf("Host %s: %v", host, err)
			continue
		}
		if got := resp.StatusCode; got != want && (want == http.StatusOK || got != http.StatusBadRequest) {
			t.Errorf("Host %s: %s, want %d", host, resp.Status, want)
		}
	}
}

// TestRedirects has blobs behind presigned URLs on another host: credentials stay
// behind, and addresses that are not allowed are not dialled.
func TestRedirects(t *testing.T) {
	t.Run("storage", func(t *testing.T) {
		p := beginPrivate(t, http.StatusForbidden, nil)
		p.up.SetRule(func(q *http.Request) origin.Fault { return origin.Fault{Redirect: q.Method == http.MethodGet} })
		p.readAll()
		p.up.SetRule(func(*http.Request) origin.Fault { return origin.Fault{Redirect: true} }) // of HEAD as well
		p.readAll()
		p.shut(p.bob, http.StatusForbidden)
		if s := p.up.Stats(); s.Leaks != 0 {
			t.Errorf("%d requests to storage carried credentials of the registry", s.Leaks)
		}
	})
	for name, to := range map[string]string{
		"metadata service": "http://169.254.169.254/latest/meta-data/", "loopback": "http://127.0.0.3:%s/", "localhost": "http://localhost:%s/",
		"mapped": "http://[::ffff:127.0.0.3]:%s/", "decimal": "http://2130706435:%s/", "zero": "http://0.0.0.0:%s/", "file": "file:///etc/passwd",
	} {
		t.Run(name, func(t *testing.T) {
			tr := setTrap(t, "127.0.0.3:0")
			_, port, _ := net.SplitHostPort(tr.address)
			everywhere := setTrap(t, "127.0.0.1:"+port) // localhost, 0.0.0.0
			r := begin(t, values{"server": values{"allowAddresses": []string{}, "upstreamTimeout": "2s"}})
			blob := origin.Random(52, 1000)
			r.up.AddBlob("a/b", blob)
			if strings.Contains(to, "%s") {
				to = fmt.Sprintf(to, port)
			}
			r.up.SetRule(func(q *http.Request) origin.Fault {
				if q.Method == http.MethodGet {
					return origin.Fault{RedirectTo: to}
				}
				return origin.Fault{}
			})
			r.refused(r.target(""), "a/b/blobs/"+blob.Digest.String(), nil, 403, 502, 503, 504)
			tr.empty(t)
			everywhere.empty(t)
			r.up.SetRule(nil)
			r.pull("", "a/b", blob)
		})
	}
}

// TestRealms has the upstream send its callers to a stranger for tokens.
func TestRealms(t *testing.T) {
	for _, realm := range []string{"https://evil.example/token", "http://169.254.169.254/token", "https://127.0.0.1.evil.example/token", "//evil.example/token"} {
		p := beginPrivate(t, http.StatusForbidden, nil)
		p.up.SetRealm(realm)
		for _, path := range append(p.paths(), "") {
			resp, body, err := p.target("").Get(p.ctx, path, nil)
			if err != nil {
				t.Errorf("%q: %v", path, err)
				continue
			}
			if strings.Contains(resp.Header.Get("WWW-Authenticate"), "realm=\""+realm) || resp.StatusCode < 400 {
				t.Errorf("%q: the caller was sent to %s: %s, %v, %.200q", path, realm, resp.Status, resp.Header, body)
			}
		}
	}
}

// TestTokenFlow is what a client does that has nothing but a password.
func TestTokenFlow(t *testing.T) {
	p := beginPrivate(t, http.StatusForbidden, nil)
	resp, _, err := p.target("").Get(p.ctx, "", nil)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("/v2/ without credentials: %v, %v; want 401", resp, err)
	}
	if want := `Bearer realm="http://` + p.up.Address + `/token"`; !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), want) {
		t.Errorf("the challenge is %q, want %s...", resp.Header.Get("WWW-Authenticate"), want)
	}
	p.refused(p.target(p.alice), "", nil, http.StatusOK)
	p.refused(p.target(origin.Basic("alice", "alice's password")), "team/alice/manifests/v1", nil, http.StatusOK)
	p.refused(p.target(origin.Basic("alice", "guessed")), "team/alice/manifests/v1", nil, http.StatusUnauthorized)
}

// TestPathTricks sends request lines that no client's library would.
func TestPathTricks(t *testing.T) {
	r := begin(t, nil)
	blob := origin.Random(53, 1000)
	r.up.AddBlob("a/b", blob)
	r.pull("", "a/b", blob)
	before, err := r.cache.Files()
	if err != nil {
		t.Fatal(err)
	}
	r.up.Reset()
	d := blob.Digest.String()
	for _, path := range []string{
		"/v2/../../etc/passwd", "/v2/a/../../b/blobs/" + d, "/v2/a/b/blobs/../../../etc/passwd", "/v2/a%2fb/blobs/" + d, "/v2/a/%2e%2e/blobs/" + d,
		"/v2/a/b%00/blobs/" + d, "/v2/A/B/blobs/" + d, "/v2/a//b/blobs/" + d, "/v2//a/b/blobs/" + d, "/v2/a/b/blobs/sha256:..%2f..%2fetc", "/v2/a/b/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
		"/v2/a/b/blobs/sha256:" + strings.ToUpper(blob.Digest.Encoded()), "/v2/a/b/blobs/" + d + "/", "/v2/a/b/blobs/" + d[:70], "/v2/a/b/manifests/..", "/v2/a/b/manifests/%2e%2e",
		"/v2/a/b/manifests/v1%0d%0aX-Evil:1", "/v2/" + strings.Repeat("a", 300) + "/blobs/" + d, "/v2/.a/b/blobs/" + d, "/v2/a/b/manifests/" + strings.Repeat("t", 200), "/v2/a\\b/blobs/" + d,
	} {
		if status, body := r.raw("GET " + path + " HTTP/1.1\r\nHost: " + r.cache.Address + "\r\nConnection: close\r\n\r\n"); status == http.StatusOK {
			t.Errorf("%s: 200, %.100q", path, body)
		}
	}
	for _, q := range r.up.Requests() {
		t.Errorf("it went upstream: %s %s", q.Method, q.URI)
	}
	after, err := r.cache.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name := range after {
		if _, ok := before[name]; !ok && !strings.Contains(name, blob.Digest.Encoded()) {
			t.Errorf("there is a new file %s", name)
		}
	}
}

// raw sends a request as it is and returns the status, 0 for none, and the rest.
func (r *rig) raw(request string) (int, string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.cache.Address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		return 0, ""
	}
	conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // then it waits for ever
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b strings.Builder
	bufio.NewReader(resp.Body).WriteTo(&b) //nolint:errcheck // what came is looked at
	return resp.StatusCode, b.String()
}

// TestPushes are refused clearly.
func TestPushes(t *testing.T) {
	r := begin(t, nil)
	for method, path := range map[string]string{
		http.MethodPost: "a/b/blobs/uploads/", http.MethodPut: "a/b/manifests/v1", http.MethodPatch: "a/b/blobs/uploads/1", http.MethodDelete: "a/b/manifests/v1",
	} {
		resp, err := r.target("").Do(r.ctx, method, path, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %s, want 405", method, path, resp.Status)
		}
	}
	if n := len(r.up.Requests()); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
}
