package load_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// tokens is a token server and what the registry knows of its tokens.
type tokens struct {
	*httptest.Server
	mu     sync.Mutex
	life   int // seconds
	asked  []string
	valid  map[string]string // scope of each token
	broken bool
	delay  time.Duration
}

func newTokens(t *testing.T) *tokens {
	s := &tokens{valid: map[string]string{}, life: 300}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	user, password, _ := r.BasicAuth()
	scope := strings.Join(r.URL.Query()["scope"], " ")
	s.asked = append(s.asked, user+" "+scope)
	if s.broken || user != "" && password != "password of "+user {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name := fmt.Sprint("token", len(s.asked))
	s.valid[name] = scope
	json.NewEncoder(w).Encode(map[string]any{"token": name, "expires_in": s.life, "issued_at": time.Now().UTC().Format(time.RFC3339)})
}

// guard has the registry want a token of the server with the scope of the request.
func (s *tokens) guard(g *registry) {
	g.before = func(w http.ResponseWriter, r *http.Request) bool {
		want := ""
		if u := trace.Parse(r.URL.Path); u.Repository != "" {
			want = "repository:" + u.Repository + ":pull"
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				want += ",push"
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		scope, ok := s.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if ok && strings.HasPrefix(scope, want) {
			return false
		}
		challenge := `Bearer realm="` + s.URL + `/token",service="test"`
		if want != "" {
			challenge += `,scope="` + want + `"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func gets(n int, path string) []load.Item {
	all := make([]load.Item, n)
	for i := range all {
		all[i] = load.Item{Op: load.Get, Kind: trace.Blob, Path: path}
	}
	return all
}

func TestTokens(t *testing.T) {
	for _, c := range []struct {
		name  string
		auth  load.Auth
		user  string
		cause load.Cause
	}{
		{"anonymous", load.Auth{}, "", ""},
		{"user", load.Auth{Username: "ann", Password: "password of ann"}, "ann", ""},
		{"wrong password", load.Auth{Username: "ann", Password: "x"}, "ann", load.CauseAuth},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, s := newRegistry(t), newTokens(t)
			s.guard(g)
			s.delay = 20 * time.Millisecond
			path := "/v2/a/blobs/" + g.add("a", []byte("x")).String()
			other := "/v2/b/blobs/" + g.add("b", []byte("x")).String()
			cfg := to(g.Server)
			cfg.Registries[0].Auth = c.auth
			for _, r := range run(t, cfg, append(gets(50, path), gets(50, other)...)...) {
				if r.Cause != c.cause {
					t.Fatalf("%+v", r)
				}
			}
			// One for each repository, however many wait for it; a refusal is not asked
			// for again at once.
			if len(s.asked) != 2 || !strings.HasPrefix(s.asked[0], c.user+" repository:") {
				t.Errorf("asked for %q", s.asked)
			}
			if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, "password") {
				t.Error("the password is printed")
			}
		})
	}
}

// TestTokenRevoked has a token refused in the middle of a run: it is renewed once and no
// request fails.
func TestTokenRevoked(t *testing.T) {
	g, s := newRegistry(t), newTokens(t)
	s.guard(g)
	path := "/v2/a/blobs/" + g.add("a", []byte("x")).String()
	cfg := to(g.Server)
	cfg.Closed, cfg.Threads = true, 4
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	stats, err := e.Run(t.Context(), of(gets(200, path)...), func(r load.Result) {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
		if n++; n == 100 {
			s.mu.Lock()
			clear(s.valid)
			s.mu.Unlock()
		}
	})
	if err != nil || stats.Tokens != 2 || stats.Renewed != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestTokenEnds has tokens that live shorter than the run: they are renewed before
// they end, so that the registry refuses none.
func TestTokenEnds(t *testing.T) {
	g, s := newRegistry(t), newTokens(t)
	s.guard(g)
	s.life = 2
	path := "/v2/a/blobs/" + g.add("a", []byte("x")).String()
	refused := 0
	guarded := g.before
	g.before = func(w http.ResponseWriter, r *http.Request) bool {
		done := guarded(w, r)
		if done {
			s.mu.Lock()
			refused++
			s.mu.Unlock()
		}
		return done
	}
	all := gets(50, path)
	for i := range all {
		all[i].Due = time.Duration(i) * 100 * time.Millisecond
	}
	for _, r := range run(t, to(g.Server), all...) {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
	}
	if refused != 1 || len(s.asked) < 2 {
		t.Errorf("refused %d, asked for %d tokens", refused, len(s.asked))
	}
}

// TestTokenScopes pushes with a scope for that and reads with its own, and has the
// clients of a trace use their own credentials.
func TestTokenScopes(t *testing.T) {
	g, s := newRegistry(t), newTokens(t)
	s.guard(g)
	path := "/v2/a/blobs/" + g.add("a", []byte("x")).String()
	cfg := to(g.Server)
	cfg.Registries[0].Clients = map[string]load.Auth{"c1": {Username: "bob", Password: "password of bob"}}
	all := append(gets(2, path), load.Item{Op: load.Push, Kind: trace.Upload, Path: "/v2/a/blobs/uploads/", Size: 10},
		load.Item{Op: load.Get, Kind: trace.Ping, Path: "/v2/"})
	all[1].Client = "c1"
	cfg.Closed = true
	for _, r := range run(t, cfg, all...) {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
	}
	want := []string{" repository:a:pull", "bob repository:a:pull", " repository:a:pull,push", " "}
	if fmt.Sprint(s.asked) != fmt.Sprint(want) {
		t.Errorf("asked for %q, want %q", s.asked, want)
	}
}

func TestBasic(t *testing.T) {
	g := newRegistry(t)
	path := "/v2/a/blobs/" + g.add("a", []byte("x")).String()
	refused := 0
	g.before = func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "ann" && password == "x" {
			return false
		}
		refused++
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	cfg := to(g.Server)
	cfg.Closed = true
	cfg.Registries[0].Auth = load.Auth{Username: "ann", Password: "x"}
	for _, r := range run(t, cfg, gets(10, path)...) {
		if r.Cause != "" {
			t.Errorf("%+v", r)
		}
	}
	if refused != 1 {
		t.Errorf("%d requests were refused, want the first", refused)
	}
	cfg.Registries[0].Auth.Password = "y"
	for _, r := range run(t, cfg, gets(2, path)...) {
		if r.Cause != load.CauseStatus || r.Status != http.StatusUnauthorized {
			t.Errorf("%+v", r)
		}
	}
}

// What is wrong with an address is told without the password in it.
func TestPasswordInAddress(t *testing.T) {
	for _, base := range []string{"http://user:sekret@host", "http://user:sekret@host:port", "ftp://user:sekret@host"} {
		_, err := load.New(load.Config{Registries: []load.Registry{{Base: base}}})
		if err == nil || strings.Contains(err.Error(), "sekret") {
			t.Errorf("%s: %v", base, err)
		}
	}
}
