package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/registry"
)

// tokenServer hands out numbered tokens, and checks them before h.
type tokenServer struct {
	life   time.Duration // of a token; 0: said to be nothing, is a minute
	user   string        // who gets tokens; "": everybody
	secret string

	down  atomic.Bool  // answers 503
	slow  atomic.Int64 // nanoseconds an answer takes
	asked atomic.Int64 // requests
	valid sync.Map     // token -> time of expiry
	mu    sync.Mutex
	last  *http.Request
	form  string // scope of the last request
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number := s.asked.Add(1)
	r.ParseForm()
	s.mu.Lock()
	s.last, s.form = r, strings.Join(r.Form["scope"], " ")
	s.mu.Unlock()
	time.Sleep(time.Duration(s.slow.Load()))
	if s.down.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	u, p, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		u, p = r.Form.Get("username"), r.Form.Get("refresh_token")
	}
	if u != s.user || p != s.secret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := fmt.Sprintf("token-%d", number)
	life := s.life
	answer := map[string]any{"token": token, "access_token": token}
	if life == 0 {
		life = time.Minute
	} else {
		answer["expires_in"] = int(life / time.Second)
	}
	s.valid.Store(token, time.Now().Add(life))
	json.NewEncoder(w).Encode(answer)
}

// guard lets requests with a valid token through to h.
func (s *tokenServer) guard(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if until, ok := s.valid.Load(token); ok && time.Now().Before(until.(time.Time)) {
			h(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate",
			`Bearer realm="http://auth.test/token",service="registry.test",scope="repository:team/app:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// revoke ends all tokens.
func (s *tokenServer) revoke() {
	s.valid.Clear()
}

// guarded serves data behind a token server.
func guarded(t *testing.T, n *fakeNet, s *tokenServer, data []byte) *fakeHost {
	n.serve(t, "auth.test", s.ServeHTTP)
	return n.serve(t, "registry.test", s.guard(content(data)))
}

func mustRead(t *testing.T, b blob.Blob, want []byte) {
	t.Helper()
	p := make([]byte, 10)
	if _, err := b.ReadAt(t.Context(), p, 20); err != nil || !bytes.Equal(p, want[20:30]) {
		t.Fatal(err)
	}
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	for _, life := range []time.Duration{0, 5 * time.Minute} {
		within(t, func(t *testing.T, n *fakeNet) {
			data := pattern(100)
			s := &tokenServer{life: life}
			reg := guarded(t, n, s, data)
			b := open(t, n.client(t, registry.Config{}), "registry.test", data)
			for range 600 { // ten minutes
				mustRead(t, b, data)
				time.Sleep(time.Second)
			}
			if got := len(reg.seen()); got != 601 {
				t.Errorf("%d requests for 600 reads: more than the first was refused", got)
			}
			want := int64(3) // every 4 minutes
			if life == 0 {
				want = 14 // every 45 seconds
			}
			if got := s.asked.Load(); got != want {
				t.Errorf("%d tokens, want %d", got, want)
			}
		})
	}
}

func TestRenewalDelaysOneReadOnly(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		s := &tokenServer{}
		guarded(t, n, s, data)
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		mustRead(t, b, data)
		time.Sleep(50 * time.Second) // due, and still valid
		s.slow.Store(int64(5 * time.Second))
		var slow atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				start := time.Now()
				b.ReadAt(t.Context(), make([]byte, 10), 0)
				if time.Since(start) > 0 {
					slow.Add(1)
				}
			})
		}
		wg.Wait()
		if slow.Load() != 1 || s.asked.Load() != 2 {
			t.Errorf("%d of 20 reads waited for %d renewals", slow.Load(), s.asked.Load()-1)
		}
	})
}

func TestTokenServerOutage(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		s := &tokenServer{}
		guarded(t, n, s, data)
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		mustRead(t, b, data)
		s.down.Store(true)
		time.Sleep(50 * time.Second)
		mustRead(t, b, data) // with the old token
		time.Sleep(20 * time.Second)
		_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
		var re *registry.Error
		if !errors.As(err, &re) || re.Host != "auth.test" || re.Status != 503 || blob.IsPermanent(err) {
			t.Errorf("error %v", err)
		}
		s.down.Store(false) // and the failure is forgotten
		mustRead(t, b, data)
	})
}

func TestOneTokenForManyReads(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		s := &tokenServer{}
		s.slow.Store(int64(time.Second))
		guarded(t, n, s, data)
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := s.asked.Load(); got != 1 {
			t.Errorf("%d tokens for parallel reads", got)
		}
		// An outage is shared by those who wait, too.
		time.Sleep(2 * time.Minute)
		s.down.Store(true)
		start := time.Now()
		for range 50 {
			wg.Go(func() {
				if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
					t.Error("a read succeeded without a token")
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("50 reads failed one after the other, in %s", took)
		}
	})
}

func TestCancelledTokenRequestHarmsNobody(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		s := &tokenServer{}
		s.slow.Store(int64(10 * time.Second))
		guarded(t, n, s, data)
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := b.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("cancelled read: %v", err)
			}
		})
		time.Sleep(time.Second)
		mustRead(t, b, data)
		wg.Wait()
	})
}

func TestRevokedToken(t *testing.T) {
	within(t, func(t *testing.T, n *fakeNet) {
		data := pattern(100)
		s := &tokenServer{life: time.Hour}
		reg := guarded(t, n, s, data)
		b := open(t, n.client(t, registry.Config{}), "registry.test", data)
		mustRead(t, b, data)
		s.revoke()
		mustRead(t, b, data)
		if s.asked.Load() != 2 || len(reg.seen()) != 4 {
			t.Errorf("%d tokens, %d requests", s.asked.Load(), len(reg.seen()))
		}
	})
}

// TestNeverEnough has a registry that takes no token.
func TestNeverEnough(t *testing.T) {
	for _, status := range []int{401, 403} {
		within(t, func(t *testing.T, n *fakeNet) {
			s := &tokenServer{}
			n.serve(t, "auth.test", s.ServeHTTP)
			reg := n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://auth.test/token"`)
				if r.Header.Get("Authorization") == "" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Error(w, `{"errors":[{"code":"DENIED","message":"not you"}]}`, status)
			})
			b := open(t, n.client(t, registry.Config{}), "registry.test", pattern(100))
			_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
			var want error = errdefs.ErrUnauthenticated
			if status == 403 {
				want = errdefs.ErrPermissionDenied
			}
			if !errors.Is(err, want) || !blob.IsPermanent(err) || !strings.Contains(err.Error(), "denied: not you") {
				t.Errorf("error %v", err)
			}
			if len(reg.seen()) != 2 || s.asked.Load() != 1 {
				t.Errorf("%d requests, %d tokens", len(reg.seen()), s.asked.Load())
			}
		})
	}
}

func TestTokenCredentials(t *testing.T) {
	data := pattern(100)
	for name, c := range map[string]struct {
		user, secret string // of the token server
		cfg          registry.Config
		method       string
	}{
		"password":       {"u", "p", registry.Config{Credentials: login("u", "p")}, "GET"},
		"identity token": {"", "id-token", registry.Config{Credentials: login("", "id-token")}, "POST"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			s := &tokenServer{user: c.user, secret: c.secret}
			guarded(t, n, s, data)
			mustRead(t, open(t, n.client(t, c.cfg), "registry.test", data), data)
			if s.last.Method != c.method || s.form != "repository:team/app:pull" {
				t.Errorf("token asked for by %s, scope %q", s.last.Method, s.form)
			}
			if got := s.last.Header.Get("User-Agent"); got != "reprise" {
				t.Errorf("User-Agent %q", got)
			}
		})
	}
	n := newNet()
	s := &tokenServer{user: "u", secret: "p"}
	guarded(t, n, s, data)
	_, err := open(t, n.client(t, registry.Config{Credentials: login("u", "wrong")}), "registry.test", data).
		ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, errdefs.ErrUnauthenticated) || !blob.IsPermanent(err) || !strings.Contains(err.Error(), "check the credentials") {
		t.Errorf("wrong password: %v", err)
	}
}

// TestTokenServerRedirects has a token server try to send a password elsewhere.
func TestTokenServerRedirects(t *testing.T) {
	n := newNet()
	s := &tokenServer{user: "u", secret: "p"}
	evil := n.serve(t, "evil.test", s.ServeHTTP)
	n.serve(t, "auth.test", redirect("http://evil.test/token"))
	n.serve(t, "registry.test", s.guard(content(pattern(100))))
	_, err := open(t, n.client(t, registry.Config{Credentials: login("u", "p")}), "registry.test", pattern(100)).
		ReadAt(t.Context(), make([]byte, 10), 0)
	if err == nil || len(evil.seen()) != 0 {
		t.Errorf("%d requests to another host, error %v", len(evil.seen()), err)
	}
}

// TestTokenServerWithoutTLS has a registry reached by https name a token server
// that is not.
func TestTokenServerWithoutTLS(t *testing.T) {
	root := t.TempDir()
	host := tlsServer(t, root, "", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://auth.test/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	_, err := open(t, client(t, registry.Config{HostsDir: root}), host, pattern(100)).ReadAt(t.Context(), make([]byte, 10), 0)
	if err == nil || !strings.Contains(err.Error(), "https") || !blob.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
}

func TestBasicCredentials(t *testing.T) {
	data := pattern(100)
	n := newNet()
	n.serve(t, "registry.test", basic("u", "p", content(data)))
	mustRead(t, open(t, n.client(t, registry.Config{Credentials: login("u", "p")}), "registry.test", data), data)

	_, err := open(t, n.client(t, registry.Config{}), "registry.test", data).ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, errdefs.ErrUnauthenticated) || !blob.IsPermanent(err) || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("without credentials: %v", err)
	}
	_, err = open(t, n.client(t, registry.Config{Credentials: login("u", "wrong")}), "registry.test", data).ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("with a wrong password: %v", err)
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func dockerAuth(entries ...string) string {
	auths := map[string]any{}
	for i := 0; i < len(entries); i += 2 {
		auths[entries[i]] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(entries[i+1]))}
	}
	text, _ := json.Marshal(map[string]any{"auths": auths})
	return string(text)
}

// TestRotatedCredentials changes the docker config.json under a blob in use.
func TestRotatedCredentials(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		data := pattern(100)
		n := newNet()
		var password atomic.Value
		password.Store("one")
		n.serve(t, "registry.test", func(w http.ResponseWriter, r *http.Request) {
			_, secret, ok := r.BasicAuth()
			if ok && secret != password.Load() && status == http.StatusForbidden {
				http.Error(w, "Your authorization token has expired.", status)
				return
			}
			basic("u", password.Load().(string), content(data))(w, r)
		})
		path := filepath.Join(t.TempDir(), "config.json")
		writeFile(t, path, dockerAuth("registry.test", "u:one"), 0o600)
		b := open(t, n.client(t, registry.Config{DockerConfig: path}), "registry.test", data)
		mustRead(t, b, data)
		password.Store("two")
		if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
			t.Error("the old password still works")
		}
		writeFile(t, path, dockerAuth("registry.test", "u:two"), 0o600)
		mustRead(t, b, data)
		password.Store("three")
		writeFile(t, path, dockerAuth("registry.test", "u:three"), 0o600)
		mustRead(t, b, data) // in one read
	}
}

func TestDockerConfigKeys(t *testing.T) {
	data := pattern(100)
	for name, config := range map[string]string{
		"host":               dockerAuth("registry.test", "u:p"),
		"legacy host":        dockerAuth("https://registry.test/v1/", "u:p"),
		"path before host":   dockerAuth("registry.test", "x:y", "registry.test/team", "u:p"),
		"longest path first": dockerAuth("registry.test/team", "x:y", "registry.test/team/app", "u:p"),
		"other path":         dockerAuth("registry.test/other", "x:y", "registry.test", "u:p"),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.serve(t, "registry.test", basic("u", "p", content(data)))
			path := filepath.Join(t.TempDir(), "config.json")
			writeFile(t, path, config, 0o600)
			mustRead(t, open(t, n.client(t, registry.Config{DockerConfig: path}), "registry.test", data), data)
		})
	}
	t.Run("environment", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("DOCKER_CONFIG", dir)
		writeFile(t, filepath.Join(dir, "config.json"), dockerAuth("registry.test", "u:p"), 0o600)
		n := newNet()
		n.serve(t, "registry.test", basic("u", "p", content(data)))
		c, err := registry.New(registry.Config{DialContext: n.dial, PlainHTTP: []string{"registry.test"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustRead(t, open(t, c, "registry.test", data), data)
	})
	t.Run("broken", func(t *testing.T) {
		n := newNet()
		n.serve(t, "registry.test", basic("u", "p", content(data)))
		path := filepath.Join(t.TempDir(), "config.json")
		writeFile(t, path, "{", 0o600)
		_, err := open(t, n.client(t, registry.Config{DockerConfig: path}), "registry.test", data).ReadAt(t.Context(), make([]byte, 10), 0)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v does not name the file", err)
		}
	})
}

func TestCredentialHelper(t *testing.T) {
	data := pattern(100)
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	// It counts its calls, and knows one host.
	writeFile(t, filepath.Join(dir, "docker-credential-reprisetest"), `#!/bin/sh
echo call >> "`+dir+`/calls"
read host
if [ "$1" = get ] && [ "$host" = registry.test ]; then
	echo '{"ServerURL":"registry.test","Username":"u","Secret":"p"}'
else
	echo "credentials not found in native keychain"
	exit 1
fi
`, 0o700)
	path := filepath.Join(dir, "config.json")
	for name, config := range map[string]string{
		"for the host": `{"credHelpers":{"registry.test":"reprisetest"}}`,
		"for all":      `{"credsStore":"reprisetest"}`,
	} {
		t.Run(name, func(t *testing.T) {
			os.Remove(filepath.Join(dir, "calls"))
			writeFile(t, path, config, 0o600)
			n := newNet()
			n.serve(t, "registry.test", basic("u", "p", content(data)))
			n.serve(t, "public.test", content(data))
			n.serve(t, "other.test", basic("u", "p", content(data)))
			c := n.client(t, registry.Config{DockerConfig: path})
			b := open(t, c, "registry.test", data)
			for range 5 {
				mustRead(t, b, data)
			}
			mustRead(t, open(t, c, "public.test", data), data)
			if calls, _ := os.ReadFile(filepath.Join(dir, "calls")); string(calls) != "call\n" {
				t.Errorf("the helper was called %d times, want once", strings.Count(string(calls), "\n"))
			}
			if _, err := open(t, c, "other.test", data).ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, errdefs.ErrUnauthenticated) {
				t.Errorf("a host the helper does not know: %v", err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		writeFile(t, path, `{"credsStore":"reprisetest-none"}`, 0o600)
		n := newNet()
		n.serve(t, "registry.test", basic("u", "p", content(data)))
		_, err := open(t, n.client(t, registry.Config{DockerConfig: path}), "registry.test", data).ReadAt(t.Context(), make([]byte, 1), 0)
		if err == nil || !strings.Contains(err.Error(), "docker-credential-reprisetest-none") {
			t.Errorf("error %v", err)
		}
	})
}

// TestPushScope checks that an upload needs one token, although the HEAD before
// it is refused for less.
func TestPushScope(t *testing.T) {
	n := newNet()
	s := &tokenServer{}
	n.serve(t, "auth.test", s.ServeHTTP)
	u := &uploads{location: "/up"}
	reg := n.serve(t, "registry.test", s.guard(u.ServeHTTP))
	data := pattern(100)
	if err := n.client(t, registry.Config{}).Push(t.Context(), "registry.test/team/app:1", descriptor(data), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if s.form != "repository:team/app:pull repository:team/app:pull,push" || s.asked.Load() != 1 || len(reg.seen()) != 4 {
		t.Errorf("%d tokens, the last for %q; %d requests", s.asked.Load(), s.form, len(reg.seen()))
	}
}

// TestScopeOfAMirror checks that a mirror that calls the repository something
// else gets tokens for that.
func TestScopeOfAMirror(t *testing.T) {
	n := newNet()
	s := &tokenServer{}
	data := pattern(100)
	n.serve(t, "auth.test", s.ServeHTTP)
	mirror := n.serve(t, "mirror.test", s.guard(content(data)))
	root := t.TempDir()
	hostConfig(t, root, "registry.test", "server = \"http://mirror.test/v2/proxy\"\noverride_path = true\n")
	mustRead(t, open(t, n.client(t, registry.Config{HostsDir: root}), "registry.test", data), data)
	if got := mirror.seen()[1].URL.Path; !strings.HasPrefix(got, "/v2/proxy/team/app/blobs/") || s.form != "repository:team/app:pull" {
		t.Errorf("asked for %s, scope %q", got, s.form)
	}
}
