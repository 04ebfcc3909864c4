package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/certs"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign returns a certificate by a, or by itself if a has none yet.
func (a *authority) sign(template *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// leaf writes a certificate for a server or a client on loopback.
func (a *authority) leaf(serial int64, cert, key string) {
	a.t.Helper()
	_, _, c, k := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "leaf"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	write(a.t, cert, c)
	write(a.t, key, k)
}

// write replaces a file, as those do who renew certificates.
func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// serve serves with the keeper's certificate.
func serve(t *testing.T, k *certs.Keeper) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{TLSConfig: k.Server(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })}
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
	return "https://" + l.Addr().String()
}

// serial returns that of the certificate a new connection gets.
func serial(t *testing.T, url string, roots *x509.CertPool, client ...tls.Certificate) (int64, error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: client}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("spoken to by %s", resp.Proto)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestReload(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	a.leaf(7, cert, key)
	var errs []error
	k, err := certs.New(certs.Files{Cert: cert, Key: key}, nil, func(err error) { errs = append(errs, err) })
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	url := serve(t, k)
	expect := func(want int64, told int) {
		t.Helper()
		k.Look()
		if got, err := serial(t, url, roots); err != nil || got != want || len(errs) != told {
			t.Errorf("certificate %d, %v, want %d; told of %v, want %d", got, err, want, errs, told)
		}
	}
	expect(7, 0)
	a.leaf(8, cert, key)
	expect(8, 0)
	// Half of a renewal, and then the other half.
	old, _ := os.ReadFile(key)
	a.leaf(9, cert, key)
	next, _ := os.ReadFile(key)
	write(t, key, old)
	expect(8, 1)
	expect(8, 2) // it is tried again
	write(t, key, next)
	expect(9, 2)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	a.leaf(10, filepath.Join(dir, "other.crt"), key)
	expect(9, 3)
	if err := os.Symlink("other.crt", cert); err != nil {
		t.Fatal(err)
	}
	expect(10, 3)
}

func TestClientCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	a.leaf(7, name("tls.crt"), name("tls.key"))
	a.leaf(20, name("client.crt"), name("client.key"))
	other.leaf(21, name("other.crt"), name("other.key"))
	write(t, name("ca.crt"), a.pem)
	k, err := certs.New(certs.Files{Cert: name("tls.crt"), Key: name("tls.key"), ClientCA: name("ca.crt")}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, k)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	load := func(s string) tls.Certificate {
		pair, err := tls.LoadX509KeyPair(name(s+".crt"), name(s+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	if _, err := serial(t, url, roots, load("client")); err != nil {
		t.Errorf("a client of the authority: %v", err)
	}
	if _, err := serial(t, url, roots); err == nil {
		t.Error("a client without a certificate is served")
	}
	if _, err := serial(t, url, roots, load("other")); err == nil {
		t.Error("a client of another authority is served")
	}
	write(t, name("ca.crt"), other.pem)
	k.Look()
	if _, err := serial(t, url, roots, load("other")); err != nil {
		t.Errorf("after the authorities were changed: %v", err)
	}
	if _, err := serial(t, url, roots, load("client")); err == nil {
		t.Error("a client of the authority that was before is served")
	}
}

func TestRoots(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	write(t, ca, a.pem)
	told := 0
	k, err := certs.New(certs.Files{Roots: ca}, func() { told++ }, nil)
	if err != nil {
		t.Fatal(err)
	}
	knows := func(x *authority) bool {
		_, err := x.cert.Verify(x509.VerifyOptions{Roots: k.Roots()})
		return err == nil
	}
	if k.Server() != nil || !knows(a) || knows(b) || told != 0 {
		t.Errorf("server %v, knows %v and %v, told %d times", k.Server(), knows(a), knows(b), told)
	}
	write(t, ca, append(b.pem, a.pem...))
	k.Look()
	k.Look()
	if !knows(a) || !knows(b) || told != 1 {
		t.Errorf("after a change it knows %v and %v, told %d times", knows(a), knows(b), told)
	}
}

func TestErrors(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	cert, key, none, empty := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "none"), filepath.Join(dir, "empty")
	a.leaf(1, cert, key)
	write(t, empty, []byte("no certificate"))
	for _, f := range []certs.Files{
		{Cert: none, Key: key}, {Cert: cert, Key: none}, {Cert: cert, Key: cert}, {Cert: cert, Key: key, ClientCA: none},
		{Cert: cert, Key: key, ClientCA: empty}, {Roots: none}, {Roots: empty},
	} {
		if _, err := certs.New(f, nil, nil); err == nil {
			t.Errorf("%+v: no error", f)
		}
	}
	k, err := certs.New(certs.Files{}, nil, nil)
	if err != nil || k.Server() != nil || k.Roots() != nil {
		t.Errorf("without files: %v, %v", k, err)
	}
}

func TestRunLooksAgain(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	write(t, ca, a.pem)
	synctest.Test(t, func(t *testing.T) {
		told := 0
		k, err := certs.New(certs.Files{Roots: ca}, func() { told++ }, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { k.Run(ctx) })
		write(t, ca, append(b.pem, a.pem...))
		time.Sleep(certs.Interval + time.Second)
		cancel()
		wg.Wait()
		if told != 1 {
			t.Errorf("told %d times of one change", told)
		}
	})
}
