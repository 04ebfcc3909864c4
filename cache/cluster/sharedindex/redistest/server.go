package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Server is one Redis server, which keeps its port and folder over its lives.
type Server struct {
	program  Program
	dir      string
	args     []string
	port     string
	bus      string // of a node of a cluster, else ""
	password string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process ended
}

// Config says how a server is.
type Config struct {
	Dir      string   // an existing folder for what it writes
	Args     []string // more of its configuration, as arguments: "--appendonly", "yes"
	Password string   // of the default user, if not ""
	Cluster  bool     // a node of a cluster
}

// New returns a server that is not started.
func New(p Program, cfg Config) (*Server, error) {
	s := &Server{program: p, dir: cfg.Dir, args: cfg.Args, password: cfg.Password}
	var err error
	if s.port, err = testbed.FreePort(); err == nil && cfg.Cluster {
		s.bus, err = testbed.FreePort()
	}
	return s, err
}

// Addr is where it listens, as host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", s.port) }

// Client returns a client of its own of the server, which tries nothing twice. The log of
// all Redis clients is switched off: a server that is not there is what tests want.
func (s *Server) Client() *redis.Client {
	logging.Disable()
	return redis.NewClient(&redis.Options{
		Addr: s.Addr(), Password: s.password, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// Start starts the server and waits until it answers.
func (s *Server) Start(ctx context.Context) error {
	out, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of redis-server: %w", err)
	}
	defer out.Close()
	args := []string{"--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no"}
	if s.bus != "" {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", s.bus, "--cluster-node-timeout", "5000")
	}
	if s.password != "" {
		args = append(args, "--requirepass", s.password)
	}
	cmd := exec.Command(s.program.Path, append(args, s.args...)...)
	cmd.Env = s.program.environment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting redis-server: %w", err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // ProcessState says how it ended
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	return s.ready(ctx, done)
}

func (s *Server) ready(ctx context.Context, done chan struct{}) error {
	c := s.Client()
	defer c.Close()
	for {
		err := c.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("starting redis-server: it ended:\n%s", s.Log())
		case <-ctx.Done():
			return fmt.Errorf("starting redis-server: %w; log:\n%s", errors.Join(ctx.Err(), err), s.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Server) log() string { return filepath.Join(s.dir, "redis.log") }

// Log is what the server has printed.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// end sends a signal that ends the process, and waits for the end.
func (s *Server) end(sig syscall.Signal) {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(sig)             //nolint:errcheck // it may have ended
	cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // the same
	<-done
}

// Kill ends it at once, Stop lets it end in order. Start starts it again, with what it
// kept on disk.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop lets the server end in order.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Freeze stops the process, so that it answers nothing, and Thaw lets it go on.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return errors.New("signalling redis-server: it was not started")
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signalling redis-server: %w", err)
	}
	return nil
}
