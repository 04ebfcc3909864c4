package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
)

// Snapshotter is this project's daemon. It may be killed and restarted on the
// same state.
type Snapshotter struct {
	// Metrics is host:port of its metrics and health endpoint.
	Metrics string

	sandbox *Sandbox
	proc    *Process
}

// SnapshotterConfig is what tests vary; more TOML can be given in Extra.
type SnapshotterConfig struct {
	// Extra maps a table's name ("" for the top) to lines in it.
	Extra map[string]string
}

// StartSnapshotter starts the daemon built by Build and waits until it
// accepts connections.
func (s *Sandbox) StartSnapshotter(ctx context.Context, c SnapshotterConfig) (*Snapshotter, error) {
	port, err := testbed.FreePort()
	if err != nil {
		return nil, err
	}
	d := &Snapshotter{Metrics: "127.0.0.1:" + port, sandbox: s}
	for _, dir := range []string{"snapshotter", "hosts", "run"} {
		if err := os.MkdirAll(s.Path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	return d, d.Reconfigure(ctx, c.Extra)
}

// Reconfigure writes a configuration with more TOML by table ("" for the top)
// and starts the stopped daemon with it.
func (d *Snapshotter) Reconfigure(ctx context.Context, extra map[string]string) error {
	s := d.sandbox
	tables := map[string]string{
		"": fmt.Sprintf("root = %q\naddress = %q\nruntime_dir = %q\n",
			s.Path("snapshotter"), s.Path("snapshotter.sock"), s.Path("run")),
		"diff":     fmt.Sprintf("containerd_address = %q\n", s.Path("containerd.sock")),
		"cache":    "min_free = \"64MiB\"\n",
		"log":      "level = \"debug\"\n",
		"metrics":  fmt.Sprintf("address = %q\n", d.Metrics),
		"registry": fmt.Sprintf("hosts_dir = %q\n", s.Path("hosts")),
		"trace":    fmt.Sprintf("record_paths = [%q]\n", s.Path("")),
	}
	for name, lines := range extra {
		tables[name] += lines
	}
	var b strings.Builder
	b.WriteString(tables[""])
	for name, lines := range tables {
		if name != "" {
			fmt.Fprintf(&b, "[%s]\n%s", name, lines)
		}
	}
	if err := os.WriteFile(s.Path("snapshotter.toml"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	return d.Start(ctx)
}

// Start starts the daemon again after Kill, Stop or Sandbox.Crash.
func (d *Snapshotter) Start(ctx context.Context) (err error) {
	s := d.sandbox
	d.proc, err = s.start("snapshotter", nil, s.Path("bin/reprise-snapshotter"), "--config", s.Path("snapshotter.toml"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return d.proc.await(ctx, func(ctx context.Context) error {
		conn, err := net.Dial("unix", s.Path("snapshotter.sock"))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// Kill sends the daemon SIGKILL; its descriptor holder lives on.
func (d *Snapshotter) Kill(ctx context.Context) error { return d.proc.Kill(ctx) }

// Stop asks the daemon to end; mounts stay.
func (d *Snapshotter) Stop(ctx context.Context) { d.proc.Stop(ctx) }

// Pid returns the daemon's process id.
func (d *Snapshotter) Pid() int { return d.proc.Pid() }

// Done is closed when the daemon has ended.
func (d *Snapshotter) Done() <-chan struct{} { return d.proc.Done() }

// Metric returns the value of a metric without labels.
func (d *Snapshotter) Metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("the snapshotter has no metric %s", name))
}
