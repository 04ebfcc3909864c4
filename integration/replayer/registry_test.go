package replayer_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/sandbox"
)

// realRegistry starts Debian's docker-registry with more of a configuration, and
// returns its address, a URL.
func realRegistry(t *testing.T, more string) string {
	t.Helper()
	return startRegistry(t, more).url()
}

// server is a docker-registry of a test.
type server struct {
	address string // host:port
	storage string // folder of its content
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
}

func (s *server) url() string { return "http://" + s.address }

// kill ends it as a power cut does.
func (s *server) kill() {
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-s.done
}

// spoil changes the bytes of a blob, but not how many there are.
func (s *server) spoil(t *testing.T, digest string) {
	t.Helper()
	hex := strings.TrimPrefix(digest, "sha256:")
	path := filepath.Join(s.storage, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startRegistry is realRegistry with a handle to kill it by. It ends with the test.
func startRegistry(t *testing.T, more string) *server {
	t.Helper()
	tools, err := sandbox.FindTools(t.Context())
	if err != nil {
		t.Skip(err)
	}
	for range 5 { // the port may be taken before it is listened on
		if s := tryRegistry(t, tools.Debian+"/usr/bin/docker-registry", more); s != nil {
			return s
		}
	}
	t.Fatal("no registry starts")
	return nil
}

func tryRegistry(t *testing.T, program, more string) *server {
	t.Helper()
	port, err := sandbox.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	storage := filepath.Join(dir, "storage")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:%s}\n%s",
		storage, port, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	s := &server{address: "127.0.0.1:" + port, storage: storage, cmd: exec.Command(program, "serve", config), done: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // it is killed
		close(s.done)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the registry said:\n%.4000s", said.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		// With a password it is there before it lets anyone in.
		if err := sandbox.Answers(ctx, s.url()+"/v2/"); err == nil || strings.Contains(err.Error(), http.StatusText(http.StatusUnauthorized)) {
			return s
		}
		select {
		case <-s.done:
			t.Logf("the registry ended:\n%.2000s", said.String())
			return nil
		case <-ctx.Done():
			t.Fatal("the registry does not answer")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
