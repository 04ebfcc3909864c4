package main

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"
)

// guarded is a registry that has every blob of four bytes, for those with a
// password, and notes what it was shown.
type guarded struct {
	mu    sync.Mutex
	shown []string
}

// ServeHTTP implements http.Handler.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := r.Header.Get("Authorization"); a != "" {
		g.shown = append(g.shown, a)
	}
	if user, secret, _ := r.BasicAuth(); user != "u" || secret != "p" {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Length", "4")
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Range", "bytes 0-3/4")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("text"))
	}
}

// withFlags calls f with a command line of push.
func withFlags(t *testing.T, f func(context.Context, *cli.Command) error, args ...string) error {
	t.Helper()
	c := pushCommand()
	c.Action = f
	return c.Run(t.Context(), append([]string{"push"}, args...))
}

var text = ocispec.Descriptor{Digest: digest.FromString("text"), Size: 4}

// exists asks the registry of ref for a blob, with flags.
func exists(t *testing.T, ref string, args ...string) error {
	t.Helper()
	return withFlags(t, func(ctx context.Context, cmd *cli.Command) error {
		c, err := newRegistry(ctx, cmd, ref)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Exists(ctx, ref, text)
		return err
	}, args...)
}

func TestRegistryFlags(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	plain, secure := httptest.NewServer(&guarded{}), httptest.NewTLSServer(&guarded{})
	defer plain.Close()
	defer secure.Close()
	dir := t.TempDir()
	ca, empty := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "empty.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	for name, data := range map[string][]byte{ca: cert, empty: nil} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Loopback is spoken to in the clear unless a host configuration says
	// otherwise.
	host := strings.TrimPrefix(secure.URL, "https://")
	if err := os.MkdirAll(filepath.Join(dir, "hosts", host), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts", host, "hosts.toml"), []byte("server = \""+secure.URL+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := strings.TrimPrefix(plain.URL, "http://") + "/app:1"
	https := []string{"--hosts-dir", filepath.Join(dir, "hosts"), "--user", "u:p"}
	for _, c := range []struct {
		ref, want string
		args      []string
	}{
		{at, "", []string{"--user", "u:p"}},
		{at, "", []string{"--plain-http", "--user", "u:p"}},
		{at, "", []string{"--http-dump", "--user", "u:p"}},
		{at, "none are configured", nil},
		{at, "401", []string{"--user", "u:wrong"}},
		{host + "/app:1", "certificate", https},
		{host + "/app:1", "", append(https, "--skip-verify")},
		{host + "/app:1", "", append(https, "--tlscacert", ca)},
		{at, "no certificate", []string{"--tlscacert", empty}},
		{at, "--tlscacert", []string{"--tlscacert", dir + "/none"}},
		{at, "belong together", []string{"--tlscert", ca}},
		{at, "private key", []string{"--tlscert", ca, "--tlskey", ca}},
		{"Not A Reference", "parsing", nil},
	} {
		err := exists(t, c.ref, c.args...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %v: %v, want %q", c.ref, c.args, err, c.want)
		}
	}
}

// The password for the destination is not shown to where layers are read from.
func TestOriginsKeepSecrets(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	own, other := &guarded{}, &guarded{}
	to, from := httptest.NewServer(own), httptest.NewServer(other)
	defer to.Close()
	defer from.Close()
	ref := strings.TrimPrefix(to.URL, "http://") + "/app:1"
	read := func(ctx context.Context, o *origins, url string) error {
		b, err := o.Open(strings.TrimPrefix(url, "http://")+"/base", text)
		if err != nil {
			return err
		}
		_, err = b.ReadAt(ctx, make([]byte, 4), 0)
		return err
	}
	err := withFlags(t, func(ctx context.Context, cmd *cli.Command) error {
		c, err := newRegistry(ctx, cmd, ref)
		if err != nil {
			return err
		}
		o, err := newOrigins(cmd, ref, c)
		if err != nil {
			return err
		}
		if err := read(ctx, o, to.URL); err != nil {
			t.Errorf("reading where is pushed to: %v", err)
		}
		if err := read(ctx, o, from.URL); err == nil {
			t.Error("another registry was content without a password")
		}
		return nil
	}, "--user", "u:p")
	if err != nil {
		t.Fatal(err)
	}
	if len(own.shown) == 0 || len(other.shown) > 0 {
		t.Errorf("the one was shown %q, the other %q", own.shown, other.shown)
	}
}
