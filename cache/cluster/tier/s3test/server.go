// Package s3test runs a real S3 server for tests, versitygw, and puts a proxy in
// front of it that breaks answers.
package s3test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Credentials and region of a Server.
const (
	AccessKey = "test-access"
	SecretKey = "test-secret-of-a-server-for-tests"
	Region    = "us-east-1"
)

// Bucket is there when a Server is.
const Bucket = "blobs"

// Server is an S3 server on this machine without TLS. It keeps its objects and its
// port over Stop and Kill.
type Server struct {
	Endpoint string // host:port
	Data     string // folder of the bucket: an object is the file of its name there

	t    testing.TB
	path string
	mu   sync.Mutex
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
}

// Binary returns the server's program: installed, or where make tools puts it.
func Binary() (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	dir, err := testbed.Tools(context.Background())
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "s3/versitygw")
	_, err = os.Stat(path)
	return path, err
}

// Start starts a server for the time of a test, which is skipped where there is none.
func Start(t testing.TB) *Server {
	t.Helper()
	path, err := Binary()
	if err != nil {
		t.Skipf("versitygw, the S3 server of the tests, is not there, make tools builds it: %v", err)
	}
	data := filepath.Join(t.TempDir(), Bucket)
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Server{Endpoint: freeAddress(t), Data: data, t: t, path: path}
	s.Start()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("versitygw said:\n%s", s.log.String())
		}
	})
	return s
}

func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := testbed.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Start starts a server that was stopped, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return
	}
	cmd := exec.Command(s.path, "--port", s.Endpoint, "--access", AccessKey, "--secret", SecretKey, "--region", Region,
		"--health", "/healthz", "--quiet", "--keep-alive", "posix", filepath.Dir(s.Data))
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	s.cmd, s.done = cmd, done
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Endpoint+"/healthz", nil)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-done:
			s.t.Fatalf("versitygw ended:\n%s", s.log.String())
		case <-ctx.Done():
			s.t.Fatal("versitygw does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server as an operator does.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server as a power cut does.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Freeze stops the server where it is: it accepts connections and says nothing.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a server go on that was frozen.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig)
	}
}

func (s *Server) end(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	s.cmd = nil
}
