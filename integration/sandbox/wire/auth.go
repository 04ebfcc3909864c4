package wire

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// User and Password are the credentials the proxy accepts.
const (
	User     = "reprise"
	Password = "open sesame"
)

// authorizer answers a request that is not allowed and reports whether it is.
type authorizer func(http.ResponseWriter, *http.Request) bool

// RequireBasic makes the proxy ask for basic authentication. It is called
// before the first request.
func (p *Proxy) RequireBasic() {
	p.auth = func(w http.ResponseWriter, r *http.Request) bool {
		if known(r) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="reprise"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return false
	}
}

func known(r *http.Request) bool {
	u, p, ok := r.BasicAuth()
	return ok && u == User && p == Password
}

// Tokens issues and checks bearer tokens.
type Tokens struct {
	life time.Duration

	mu     sync.Mutex
	until  map[string]time.Time
	issued int
}

// RequireToken makes the proxy ask for bearer tokens, which its own /token
// gives to who knows the password and which expire after life. It is called
// before the first request.
func (p *Proxy) RequireToken(life time.Duration) *Tokens {
	t := &Tokens{life: life, until: map[string]time.Time{}}
	p.auth = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			t.issue(w, r)
			return false
		}
		if t.valid(r.Header.Get("Authorization")) {
			return true
		}
		w.Header().Set("WWW-Authenticate",
			fmt.Sprintf(`Bearer realm="http://%s/token",service="reprise",scope="repository:demo:pull,push"`, p.Address))
		http.Error(w, "token needed", http.StatusUnauthorized)
		return false
	}
	return t
}

// Issued returns the number of tokens given out.
func (t *Tokens) Issued() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issued
}

func (t *Tokens) issue(w http.ResponseWriter, r *http.Request) {
	// The OAuth form of a token request carries the password in its body.
	if !known(r) && (r.FormValue("username") != User || r.FormValue("password") != Password) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	t.mu.Lock()
	t.until["Bearer "+token] = time.Now().Add(t.life)
	t.issued++
	t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck // the client sees a cut answer
		"token":        token,
		"access_token": token,
		"expires_in":   int(t.life.Seconds()),
		"issued_at":    time.Now().UTC().Format(time.RFC3339),
	})
}

func (t *Tokens) valid(header string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.until[header]
	return ok && time.Now().Before(until)
}
