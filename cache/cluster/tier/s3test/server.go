// Package s3test runs a real S3 server for tests, versitygw, and puts a proxy in
// front of it that breaks answers.
package s3test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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

	t       testing.TB
	path    string
	log     string
	process testbed.Process
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
		testbed.Missing(t, "versitygw, the S3 server of the tests,", err)
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data", Bucket)
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Endpoint: freeAddress(t), Data: data, t: t, path: path, log: filepath.Join(dir, "log"),
		process: testbed.Process{Name: "versitygw"},
	}
	s.Start()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("versitygw said:\n%s", s.said())
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
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(s.path, "--port", s.Endpoint, "--access", AccessKey, "--secret", SecretKey, "--region", Region,
		"--health", "/healthz", "--quiet", "--keep-alive", "posix", filepath.Dir(s.Data))
	cmd.Stdout, cmd.Stderr = out, out
	if err := s.process.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = s.process.Await(ctx, s.said, func(ctx context.Context) error {
		return testbed.Answers(ctx, "http://"+s.Endpoint+"/healthz")
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// said is what the server has printed.
func (s *Server) said() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Stop ends the server as an operator does.
func (s *Server) Stop() { s.process.End(syscall.SIGTERM, grace) }

// grace is how long the server has to end.
const grace = 20 * time.Second

// Kill ends the server as a power cut does.
func (s *Server) Kill() { s.process.End(syscall.SIGKILL, grace) }

// Freeze stops the server where it is: it accepts connections and says nothing.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a server go on that was frozen.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}
