package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	process  testbed.Process
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
	s := &Server{program: p, dir: cfg.Dir, args: cfg.Args, password: cfg.Password, process: testbed.Process{Name: "redis-server"}}
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
	cmd.Env = s.program.Environment()
	cmd.Stdout, cmd.Stderr = out, out
	if err := s.process.Start(cmd); err != nil {
		return err
	}
	c := s.Client()
	defer c.Close()
	return s.process.Await(ctx, s.Log, func(ctx context.Context) error { return c.Ping(ctx).Err() })
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

// grace is how long a server has to end.
const grace = time.Minute

// Kill ends it at once, Stop lets it end in order. Start starts it again, with what it
// kept on disk.
func (s *Server) Kill() { s.process.End(syscall.SIGKILL, grace) }

// Stop lets the server end in order.
func (s *Server) Stop() { s.process.End(syscall.SIGTERM, grace) }

// Freeze stops the process, so that it answers nothing, and Thaw lets it go on.
func (s *Server) Freeze() error { return s.process.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() error { return s.process.Signal(syscall.SIGCONT) }
