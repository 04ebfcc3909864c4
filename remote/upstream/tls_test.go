package upstream_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/reprise-containers/reprise/remote/upstream"
)

// newTLS starts a server whose handler may be set.
func newTLS(t *testing.T) (*httptest.Server, *http.HandlerFunc) {
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(w, r) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, &h
}

// TestRoots: who is not known is not spoken to, until it is.
func TestRoots(t *testing.T) {
	s, _ := newTLS(t)
	c := client(t, upstream.Config{})
	_, _, err := do(t, c, "GET", s.URL+"/v2/", "Bearer token")
	var cert *tls.CertificateVerificationError
	if e, ok := errors.AsType[*upstream.Error](err); !ok || !errors.As(err, &cert) || e.Temporary() {
		t.Fatalf("unknown certificate: %v", err)
	}
	c.SetRoots(trusting(s).RootCAs)
	resp, _, err := do(t, c, "GET", s.URL+"/v2/", "Bearer token")
	if err != nil || resp.ProtoMajor != 2 {
		t.Errorf("%v, %v, want HTTP/2", resp, err)
	}
	c.SetRoots(nil)
	if _, _, err := do(t, c, "GET", s.URL+"/v2/", "Bearer token"); err == nil {
		t.Error("connection to a registry that is not trusted any more")
	}
}
