package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

// peer is a server of blobs that hits are measured on.
type peer struct {
	name    string
	address string
	pid     int
	stop    func()
}

// cpu returns the processor time that the process and its children that it waits
// for, or that live, have used.
func (p peer) cpu() (time.Duration, error) {
	var sum time.Duration
	pids := []int{p.pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid, p.pid))
	if err == nil {
		for _, f := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		for _, i := range []int{11, 12} { // utime, stime in ticks of 10 ms
			ticks, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum, nil
}

// launch starts a program and waits until its address answers anything.
func launch(ctx context.Context, name, address, log string, argv ...string) (peer, error) {
	out, err := os.Create(log)
	if err != nil {
		return peer{}, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return peer{}, fmt.Errorf("starting %s: %w", name, err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // it is ended by a signal
		close(done)
	}()
	p := peer{name: name, address: address, pid: cmd.Process.Pid, stop: func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		<-done
	}}
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return p, conn.Close()
		}
		select {
		case <-done:
			text, _ := os.ReadFile(log)
			return peer{}, fmt.Errorf("starting %s: it ended: %s", name, text)
		case <-ctx.Done():
			p.stop()
			return peer{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	return testbed.FreeAddress()
}

const nginxConfig = `user root;
worker_processes auto;
daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
  server { listen %[2]s; root %[3]s; }
}
`

// nginx serves the blobs as files of a folder.
func (b bench) nginx(ctx context.Context, dir string, blobs []*origin.Content) (peer, error) {
	root := filepath.Join(dir, "root")
	for _, c := range blobs {
		name := filepath.Join(root, blobPath(c))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return peer{}, err
		}
		f, err := os.Create(name)
		if err != nil {
			return peer{}, err
		}
		_, err = io.Copy(f, io.NewSectionReader(c, 0, c.Size))
		if err := errors.Join(err, f.Close()); err != nil {
			return peer{}, err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return peer{}, err
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, address, root), 0o644); err != nil {
		return peer{}, err
	}
	return launch(ctx, "nginx", address, filepath.Join(dir, "nginx.log"), b.tools.Debian+"/usr/sbin/nginx", "-c", config, "-e", filepath.Join(dir, "error.log"))
}

const distributionConfig = `version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
http:
  addr: %s
proxy:
  remoteurl: http://%s
  ttl: 168h
`

// distribution is distribution's registry as a pull-through cache.
func (b bench) distribution(ctx context.Context, dir, upstream string) (peer, error) {
	program := filepath.Join(dir, "distribution")
	if err := b.build(ctx, filepath.Join(b.tools.Module, "integration/bench/distribution"), program, "."); err != nil {
		return peer{}, err
	}
	address, err := freeAddress()
	if err != nil {
		return peer{}, err
	}
	config := filepath.Join(dir, "distribution.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, distributionConfig, filepath.Join(dir, "distribution-data"), address, upstream), 0o644); err != nil {
		return peer{}, err
	}
	return launch(ctx, "distribution", address, filepath.Join(dir, "distribution.log"), program, "serve", config)
}

// bareChild is the argument with which this program is the bare handler.
const bareChild = "serve-the-same-bytes"

// serveBare is net/http with a handler that writes the same bytes to everybody.
func serveBare(address string, size int64) error {
	body := origin.Random(1, size).Bytes()
	length := strconv.FormatInt(size, 10)
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a benchmark on loopback
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", length)
		w.Write(body) //nolint:errcheck // the client sees it
	}))
}

func (b bench) bare(ctx context.Context, dir string, size int64) (peer, error) {
	self, err := os.Executable()
	if err != nil {
		return peer{}, err
	}
	address, err := freeAddress()
	if err != nil {
		return peer{}, err
	}
	return launch(ctx, "net/http", address, filepath.Join(dir, "bare.log"), self, bareChild, address, strconv.FormatInt(size, 10))
}

// cached starts a registry-cache; values are laid over its configuration.
func (b bench) cached(ctx context.Context, name, program, dir, upstream string, over instance.Values) (peer, *instance.Instance, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return peer{}, nil, err
	}
	i, err := instance.New(instance.Config{Program: program, Dir: dir, Upstream: upstream, Values: over})
	if err != nil {
		return peer{}, nil, err
	}
	if err := i.Start(ctx); err != nil {
		return peer{}, nil, err
	}
	return peer{name: name, address: i.Address, pid: i.Pid(), stop: func() {
		if err := i.Stop(); err != nil {
			say("%v", err)
		}
	}}, i, nil
}

// blobPath is where a blob is, at every peer.
func blobPath(c *origin.Content) string { return "/v2/bench/blobs/blobs/" + c.Digest.String() }
