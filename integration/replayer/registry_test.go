package replayer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
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
	argv    []string
	said    heard
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
	s, err := serve(t.TempDir(), more)
	needed(t, err)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the registry said:\n%.4000s", s.said.String())
		}
	})
	return s
}

// common is the registry of tests that only read from it, with what pulls reads, and
// the interim map of that.
var common = sync.OnceValues(func() (*server, error) {
	commonUsed.Store(true)
	return serve(filepath.Join(programDir, "registry"), "")
})

var commonUsed atomic.Bool

var errNoTools = errors.New("the tools are not there")

// needed ends the test because of an error. Without tools it is skipped, unless it is
// root's, who can have them.
func needed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errNoTools) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts a registry with its files in dir.
func serve(dir, more string) (*server, error) {
	tools, err := sandbox.FindTools(context.Background())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTools, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for range 5 { // the port may be taken before it is listened on
		s, e := tryServe(tools.Debian+"/usr/bin/docker-registry", dir, more)
		if e == nil {
			return s, nil
		}
		err = e
	}
	return nil, err
}

func tryServe(program, dir, more string) (*server, error) {
	port, err := testbed.FreePort()
	if err != nil {
		return nil, err
	}
	config, storage := filepath.Join(dir, "config.yml"), filepath.Join(dir, "storage")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:%s}\n%s",
		storage, port, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s := &server{address: "127.0.0.1:" + port, storage: storage, argv: []string{program, "serve", config}}
	return s, s.start()
}

// start starts it, again after kill, and waits until it answers.
func (s *server) start() error {
	s.cmd, s.done = exec.Command(s.argv[0], s.argv[1:]...), make(chan struct{})
	s.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, done := s.cmd, s.done
	go func() {
		cmd.Wait() //nolint:errcheck // it is killed
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		// With a password it is there before it lets anyone in.
		err := testbed.Answers(ctx, s.url()+"/v2/")
		if err == nil || strings.Contains(err.Error(), http.StatusText(http.StatusUnauthorized)) {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("the registry ended:\n%.2000s", s.said.String())
		case <-ctx.Done():
			s.kill()
			return fmt.Errorf("the registry does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
