package origin

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// users is the token service and what its tokens allow.
type users struct {
	passwords map[string]string
	readers   map[string][]string // repository -> who may read it
	tokens    map[string]token    // Authorization header -> who
	life      time.Duration
	realm     string
	// denial is the answer to a known user without rights: registries
	// differ between 401, 403 and 404.
	denial int
}

type token struct {
	user  string
	until time.Time
}

// Private makes tokens necessary from here on: repositories without readers
// can be read with any token. Life is that of a token, denial the status for
// a known user without rights.
func (o *Origin) Private(life time.Duration, denial int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users = &users{
		passwords: map[string]string{}, readers: map[string][]string{}, tokens: map[string]token{},
		life: life, denial: denial, realm: "http://" + o.Address + "/token",
	}
}

// SetRealm has challenges name another token service.
func (o *Origin) SetRealm(url string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users.realm = url
}

// AddUser makes a user known.
func (o *Origin) AddUser(name, password string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users.passwords[name] = password
}

// SetReaders says who may read a repository; nobody may, if it is empty.
func (o *Origin) SetReaders(repo string, users ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users.readers[repo] = slices.Clone(users)
}

// Token returns an Authorization header of a user, as the token service gives.
func (o *Origin) Token(user string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.users.issue(user)
}

// issue makes a token that looks like what hosted registries give: signed
// claims of which only the time of their end means something to others.
func (u *users) issue(user string) string {
	until := time.Now().Add(u.life)
	claims, err := json.Marshal(map[string]any{"sub": user, "exp": until.Unix(), "jti": rand.Text()})
	if err != nil {
		panic(err) // a map of strings and numbers
	}
	enc := base64.RawURLEncoding.EncodeToString
	header := "Bearer " + enc([]byte(`{"alg":"none"}`)) + "." + enc(claims) + "." + enc([]byte("signature"))
	u.tokens[header] = token{user, until}
	return header
}

// Basic returns the Authorization header of a user and password.
func Basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// serveToken is the token service.
func (o *Origin) serveToken(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Tokens++
	if o.users == nil {
		http.NotFound(w, r)
		return
	}
	name, password, _ := r.BasicAuth()
	if name == "" {
		// The OAuth form of a token request carries the password in its body.
		name, password = r.FormValue("username"), r.FormValue("password")
	}
	if want, ok := o.users.passwords[name]; !ok || want != password {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	t := strings.TrimPrefix(o.users.issue(name), "Bearer ")
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck // the client sees a cut answer
		"token": t, "access_token": t, "expires_in": int(o.users.life.Seconds()),
		"issued_at": time.Now().UTC().Format(time.RFC3339),
	})
}

// allow returns 0 if the request may read repo, else the status of the denial,
// with its challenge in w.
func (o *Origin) allow(w http.ResponseWriter, r *http.Request, repo string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	u := o.users
	if u == nil {
		return 0
	}
	name := u.who(r)
	readers, limited := u.readers[repo]
	if name != "" && (!limited || slices.Contains(readers, name)) {
		return 0
	}
	status := http.StatusUnauthorized
	if name != "" {
		status = u.denial
	}
	if status == http.StatusUnauthorized {
		scope := ""
		if repo != "" {
			scope = fmt.Sprintf(`,scope="repository:%s:pull"`, repo)
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="origin"%s`, u.realm, scope))
	}
	return status
}

// who returns the user a request comes from, "" if nobody can tell.
func (u *users) who(r *http.Request) string {
	if name, password, ok := r.BasicAuth(); ok && password != "" && u.passwords[name] == password {
		return name
	}
	t, ok := u.tokens[r.Header.Get("Authorization")]
	if !ok || time.Now().After(t.until) {
		return ""
	}
	return t.user
}
