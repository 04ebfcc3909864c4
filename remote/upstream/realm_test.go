package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// TestRealms: a caller is not sent away with its credentials.
func TestRealms(t *testing.T) {
	var challenges []string
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, c := range challenges {
			w.Header().Add("WWW-Authenticate", c)
		}
		w.WriteHeader(401)
	})
	port := at[strings.LastIndexByte(at, ':'):]
	c := client(t, upstream.Config{
		Resolver: names(t, map[string][][]string{
			"registry.example.com.": {{"127.0.0.1"}}, "one.github.io.": {{"127.0.0.1"}}, "single.": {{"127.0.0.1"}},
		}),
		AuthRealms: []string{"login.other.example", "ported.example:8443"},
	})
	for _, tc := range []struct {
		host, challenge string
		ok              bool
	}{
		{"registry.example.com", `Bearer realm="https://auth.example.com/token",service="x"`, true},
		{"registry.example.com", `Bearer realm="https://AUTH.Example.com:8443/token"`, true},
		{"registry.example.com", `Bearer realm="http://auth.example.com/token"`, true}, // the registry is http itself
		{"registry.example.com", `bearer realm="https://example.com/token"`, true},
		{"registry.example.com", `Bearer realm="https://login.other.example/token"`, true},
		{"registry.example.com", `Bearer realm="https://ported.example:8443/token"`, true},
		{"registry.example.com", `Basic realm="whatever it says"`, true},
		{"registry.example.com", `Basic realm="https://evil.example/"`, true}, // a text
		{"registry.example.com", `Negotiate`, true},
		{"127.0.0.1", `Bearer realm="http://127.0.0.1:9/token"`, true},
		{"single", `Bearer realm="https://single/token"`, true},

		{"registry.example.com", `Bearer realm="https://evil.example/token"`, false},
		{"registry.example.com", `BEARER realm="https://evil.example/token"`, false},
		{"registry.example.com", `Bearer realm="https://example.com.evil.example/token"`, false},
		{"registry.example.com", `Bearer realm="https://evilexample.com/token"`, false},
		{"registry.example.com", `Bearer realm="https://example.com@evil.example/token"`, false},
		{"registry.example.com", `Bearer realm="https://me:word@auth.example.com/token"`, false},
		{"registry.example.com", `Bearer realm="//auth.example.com/token"`, false},
		{"registry.example.com", `Bearer realm="/token"`, false},
		{"registry.example.com", `Bearer realm=""`, false},
		{"registry.example.com", `Bearer realm="ftp://auth.example.com/token"`, false},
		{"registry.example.com", `Bearer realm="https:auth.example.com"`, false},
		{"registry.example.com", `Bearer realm="https://127.0.0.1/token"`, false},
		{"registry.example.com", `Bearer realm="https://ported.example/token"`, false},
		{"registry.example.com", `Bearer realm="https://ported.example:8444/token"`, false},
		{"one.github.io", `Bearer realm="https://two.github.io/token"`, false}, // of another owner
		{"single", `Bearer realm="https://other/token"`, false},
		{"127.0.0.1", `Bearer realm="https://127.0.0.2/token"`, false},
		{"127.0.0.1", `Bearer realm="https://10.9.0.1/token"`, false},                             // 0.1 is no domain
		{"registry.example.com", `Bearer realm="https://evil.example／.example.com/token"`, false}, // a slash to IDNA
		{"registry.example.com", `Bearer realm="https://evil.example\\@auth.example.com/token"`, false},
		{"registry.example.com", `Bearer realm="https://evil.example%2f.example.com/token"`, false},
		// What some reader could take for a bearer challenge.
		{"registry.example.com", `Basic realm="x", Bearer realm="https://evil.example/token"`, false},
		{"registry.example.com", `Basic realm="x" Bearer realm="https://evil.example/token"`, false},
		{"registry.example.com", `Bearer realm="https://auth.example.com/",realm="https://evil.example/"`, false},
		{"registry.example.com", `Bearer realm="https://auth.example.com/`, false},
		{"registry.example.com", `Bearer realm=https://evil.example/token`, false},
		{"registry.example.com", "Bearer\trealm=\"https://evil.example/token\"", false},
		{"registry.example.com", `, ,Bearer service=x, realm="https://evil.example/token"`, false},
		{"registry.example.com", `Bearer realm = "https://evil.example/token"`, false},
	} {
		for _, method := range []string{"HEAD", "GET"} {
			challenges = []string{tc.challenge}
			resp, _, err := do(t, c, method, "http://"+tc.host+port+"/v2/a/manifests/b", "")
			if tc.ok {
				if err != nil || resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %s: %v %v", tc.host, tc.challenge, resp, err)
				}
				continue
			}
			e, ok := errors.AsType[*upstream.RealmError](err)
			if !ok || !strings.HasPrefix(e.Host, tc.host) || strings.Contains(err.Error(), "word@") {
				t.Errorf("%s: %s: %v", tc.host, tc.challenge, err)
			}
		}
	}
	challenges = []string{`bearer  Realm = https://127.0.0.1/t?a=b , service="x y",`, `Basic realm=z, Negotiate`}
	resp, _, err := do(t, c, "GET", at+"/v2/", "")
	if err != nil {
		t.Fatal(err)
	}
	// As it was checked, whatever a caller would have made of how it was sent.
	want := []string{`bearer realm="https://127.0.0.1/t?a=b",service="x y"`, `Basic realm="z"`, `Negotiate`}
	if got := resp.Header.Values("WWW-Authenticate"); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("challenges %q, want %q", got, want)
	}
	challenges = []string{`Basic realm="x"`, `Bearer realm="https://evil.example/token?key=SECRET"`}
	_, _, err = do(t, c, "GET", at+"/v2/", "")
	if err == nil || !strings.Contains(err.Error(), "https://evil.example/token, which") ||
		!strings.Contains(err.Error(), "server.authRealms") || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("second of two: %v", err)
	}
	if s := c.Stats(); s.Realms == 0 || s.Realms != s.Errors || s.WorkersBusy != 0 || s.ChecksBusy != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRealmOfSecureRegistry: a token server without TLS is none for a registry with.
func TestRealmOfSecureRegistry(t *testing.T) {
	s, h := newTLS(t)
	*h = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL.Query().Get("realm")+`"`)
		w.WriteHeader(401)
	}
	c := client(t, upstream.Config{TLS: trusting(s), AuthRealms: []string{"listed.example"}})
	for realm, ok := range map[string]bool{
		s.URL + "/token": true, "https://127.0.0.1/token": true, "https://listed.example/token": true,
		"http://127.0.0.1/token": false, "http://listed.example/token": false,
	} {
		_, _, err := do(t, c, "GET", s.URL+"/v2/?realm="+url.QueryEscape(realm), "")
		if (err == nil) != ok {
			t.Errorf("%s: %v", realm, err)
		}
	}
}

// TestRealmOfRedirect: a challenge of where a registry redirected to is the caller's
// as if it were the registry's.
func TestRealmOfRedirect(t *testing.T) {
	away := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.cdn.example/token"`)
		w.WriteHeader(401)
	})
	port := away[strings.LastIndexByte(away, ':'):]
	home := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://data.cdn.example"+port, http.StatusTemporaryRedirect)
	})
	c := client(t, upstream.Config{Resolver: names(t, map[string][][]string{"data.cdn.example.": {{"127.0.0.1"}}})})
	_, _, err := do(t, c, "GET", home+"/v2/a/blobs/b", "Bearer token")
	if _, ok := errors.AsType[*upstream.RealmError](err); !ok {
		t.Error(err)
	}
}

func TestParseChallenges(t *testing.T) {
	for in, want := range map[string]string{
		``:                      ``,
		`,, ,`:                  ``,
		`Basic`:                 `Basic`,
		`Basic realm="a b"`:     `Basic realm="a b"`,
		`Bearer realm=x`:        `Bearer realm="x"`,
		`Bearer REALM="x"`:      `Bearer realm="x"`,
		`Bearer a="1",b="2"`:    `Bearer a="1",b="2"`,
		`Bearer a="1" , b="2",`: `Bearer a="1",b="2"`,
		`Bearer a="1\"2\\3"`:    `Bearer a="1\"2\\3"`,
		`Bearer a="1,b=2"`:      `Bearer a="1,b=2"`,
		`Bearer a="ü"`:          `Bearer a="ü"`,
		`Bearer realm=https://x.example/t?a=b,service=s:1`: `Bearer realm="https://x.example/t?a=b",service="s:1"`,
		`A, B`:                      `A; B`,
		`A x=1, B y=2`:              `A x="1"; B y="2"`,
		`Negotiate YWJj==, Basic`:   `Negotiate YWJj==; Basic`,
		`Negotiate YWJj, Basic a=b`: `Negotiate YWJj; Basic a="b"`,
		`Negotiate abc=`:            `Negotiate abc=`,
		`A a=1, a=2`:                `error`,
		`A a=1 b=2`:                 `error`,
		`A a="1`:                    `error`,
		`A a="1\`:                   `error`,
		"A a=\"\x01\"":              `error`,
		`"A"`:                       `error`,
		`A a="1"x`:                  `error`,
		`=`:                         `error`,
		`A a=`:                      `A a=`,
		`A b c`:                     `error`,
		strings.Repeat("A,", 17):    `error`,
	} {
		all, err := upstream.ParseChallenges([]string{in})
		var parts []string
		for _, c := range all {
			parts = append(parts, c.Text)
		}
		got := strings.Join(parts, "; ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s (%v), want %s", in, got, err, want)
		}
	}
}
