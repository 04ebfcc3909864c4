package cacheadmin_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

func TestParseImage(t *testing.T) {
	for text, want := range map[string]string{
		"registry.example/team/app":           "registry.example team/app ",
		"registry.example:5000/app":           "registry.example:5000 app ",
		"Registry.Example:5000/app:v1":        "registry.example:5000 app v1",
		"[::1]:5000/a/b/c:v1":                 "[::1]:5000 a/b/c v1",
		"registry.example/app@sha256:beef":    "registry.example app sha256:beef",
		"registry.example/app:v1@sha256:beef": "registry.example app sha256:beef",
		"registry.example":                    "",
		"/app":                                "",
		"registry.example/":                   "",
		"registry.example/:v1":                "",
		"registry.example/@sha256:beef":       "",
	} {
		host, repository, reference, err := cacheadmin.ParseImage(text)
		if got := host + " " + repository + " " + reference; err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add("registry.example:5000/team/app:v1@sha256:beef")
	f.Fuzz(func(t *testing.T, text string) {
		host, repository, reference, err := cacheadmin.ParseImage(text)
		if err != nil {
			return
		}
		if host == "" || repository == "" || strings.Contains(host, "/") || strings.Contains(repository, "@") {
			t.Errorf("%q is %q, %q, %q", text, host, repository, reference)
		}
	})
}

// A socket that a killed process left is no obstacle, and the folder's path may be
// longer than that of a socket.
func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := cacheadmin.Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(dir, cacheadmin.SocketName))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the socket is %v, %v", st, err)
		}
		defer l.Close() // not before the next one listens: as a killed process would
	}
	if _, err := cacheadmin.NewClient(t.TempDir()).Stat(t.Context()); !errors.Is(err, cacheadmin.ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	if _, err := cacheadmin.NewClient(filepath.Join(dir, "none")).Stat(t.Context()); !errors.Is(err, cacheadmin.ErrNotRunning) {
		t.Errorf("without a folder: %v", err)
	}
}
