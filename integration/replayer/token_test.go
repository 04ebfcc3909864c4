package replayer_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/schedule"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// issuer is a token server whose tokens a registry takes: JSON web tokens that are
// signed with a certificate the registry knows, as the distribution project's token
// specification has them.
type issuer struct {
	*httptest.Server
	t           *testing.T
	key         *rsa.PrivateKey
	certificate []byte // DER

	mu    sync.Mutex
	asked []string
}

func newIssuer(t *testing.T) *issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key, certificate: der}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// registry is what the registry's configuration has of the issuer.
func (i *issuer) registry() string {
	file := filepath.Join(i.t.TempDir(), "issuer.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate}), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return fmt.Sprintf("auth: {token: {realm: %s/token, service: test, issuer: issuer, rootcertbundle: %s}}\n", i.URL, file)
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != "" && password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, s := range r.URL.Query()["scope"] {
		for one := range strings.FieldsSeq(s) {
			parts := strings.Split(one, ":")
			actions := strings.Split(parts[2], ",")
			if user == "" { // anybody may pull
				actions = []string{"pull"}
			}
			granted = append(granted, access{parts[0], parts[1], actions})
		}
	}
	i.mu.Lock()
	i.asked = append(i.asked, user+" "+strings.Join(r.URL.Query()["scope"], " "))
	i.mu.Unlock()
	now := time.Now().Unix()
	header := map[string]any{"typ": "JWT", "alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(i.certificate)}}
	claims := map[string]any{"iss": "issuer", "sub": user, "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": rand.Text(), "access": granted}
	json.NewEncoder(w).Encode(map[string]any{"token": i.sign(header, claims), "expires_in": 300})
}

func (i *issuer) sign(header, claims map[string]any) string {
	var parts []string
	for _, part := range []map[string]any{header, claims} {
		p, err := json.Marshal(part)
		if err != nil {
			i.t.Error(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(p))
	}
	text := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		i.t.Error(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestLoadWithTokens speaks to a registry that wants bearer tokens, as a user, as
// nobody, and with a password that is wrong.
func TestLoadWithTokens(t *testing.T) {
	issuer := newIssuer(t)
	address := realRegistry(t, issuer.registry())
	cfg := load.Config{Registries: []load.Registry{{Base: address, Auth: load.Auth{Username: "ann", Password: "secret"}}}}
	var pushes, reads []trace.Request
	for i := range 20 {
		repository := fmt.Sprint("team/app", i%4)
		pushes = append(pushes, trace.Request{Method: "PUT", URI: fmt.Sprint("v2/", repository, "/manifests/tag", i), Size: 1000})
		reads = append(reads, trace.Request{Method: "GET", URI: fmt.Sprint("v2/", repository, "/manifests/tag", i)})
	}
	how := schedule.Config{Untimed: true}
	check := func(name string, cfg load.Config, requests []trace.Request, want load.Cause) {
		t.Helper()
		n := 0
		for uri, rs := range results(t, cfg, how, requests...) {
			for _, r := range rs {
				if n++; r.Cause != want {
					t.Errorf("%s, %s: %+v", name, uri, r)
				}
			}
		}
		if n != len(requests) {
			t.Errorf("%s: %d results of %d", name, n, len(requests))
		}
	}
	check("push", cfg, pushes, load.CauseNone)
	if len(issuer.asked) != 4 {
		t.Errorf("tokens asked for: %q, want one for each repository", issuer.asked)
	}
	check("read", cfg, append(reads, trace.Request{Method: "GET", URI: "v2"}), load.CauseNone)
	cfg.Registries[0].Auth = load.Auth{}
	check("anonymous read", cfg, reads, load.CauseNone)
	check("anonymous push", cfg, pushes, load.CauseStatus)
	cfg.Registries[0].Auth = load.Auth{Username: "ann", Password: "guess"}
	check("wrong password", cfg, reads, load.CauseAuth)
}
