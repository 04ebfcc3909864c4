// Package registrytest runs a real registry for tests: Debian's docker-registry,
// which has no referrers API.
package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const config = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: %[2]s, relativeurls: true}
`

const auth = `auth: {htpasswd: {realm: test, path: %[1]s/htpasswd}}
`

// binary returns the registry: installed, or where make tools unpacks it.
func binary() (string, error) {
	if path, err := exec.LookPath("docker-registry"); err == nil {
		return path, nil
	}
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for _, err = os.Stat(filepath.Join(root, "go.mod")); err != nil; _, err = os.Stat(filepath.Join(root, "go.mod")) {
		if root == filepath.Dir(root) {
			return "", errors.New("not in the module")
		}
		root = filepath.Dir(root)
	}
	dir, err := exec.Command(filepath.Join(root, "integration/tools/install.sh"), "--dir").Output()
	if err != nil {
		return "", fmt.Errorf("asking for the tools: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(dir)), "debian/usr/bin/docker-registry")
	_, err = os.Stat(path)
	return path, err
}

// Start starts a registry for the time of a test, which is skipped where there
// is none, and returns its host. htpasswd is the users that may do everything,
// as lines of such a file; empty: anybody may.
func Start(t testing.TB, htpasswd string) (host string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Skipf("docker-registry is not there, make tools fetches it: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	text := config
	if htpasswd != "" {
		text += auth
	}
	err = os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(htpasswd), 0o600)
	file := filepath.Join(dir, "config.yml")
	if err := errors.Join(err, os.WriteFile(file, fmt.Appendf(nil, text, dir, host), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 600 {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}
