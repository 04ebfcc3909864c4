package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"
)

// Release is a release of containerd that a sandbox can run.
type Release int

const (
	// Current is containerd built from the version pinned in integration/tools.
	Current Release = iota
	// Debian is the one Debian 12 ships: 1.6, without the transfer service.
	Debian
)

// Containerd is a running containerd with the overlaybd proxy plugin. It may
// be restarted on the same state.
type Containerd struct {
	// Address is its gRPC socket.
	Address string

	sandbox *Sandbox
	release Release
	proc    *Process
}

const commonConfig = `root = "{{.Path "containerd/root"}}"
state = "{{.Path "containerd/state"}}"
[grpc]
  address = "{{.Path "containerd.sock"}}"
[ttrpc]
  address = "{{.Path "containerd.sock"}}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Path "containerd/opt"}}"
[proxy_plugins.overlaybd]
  type = "snapshot"
  address = "{{.Path "snapshotter.sock"}}"
`

// The configuration leaves out what a sandbox must not share with the
// machine (CNI, NRI, /opt) or has no use for.
var containerdConfig = map[Release]*template.Template{
	Current: template.Must(template.New("current").Parse(`version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
` + commonConfig + `  [proxy_plugins.overlaybd.exports]
    root = "{{.Path "snapshotter"}}"
    enable_remote_snapshot_annotations = "true"
{{- if .Differ}}
[proxy_plugins.overlaybd-diff]
  type = "diff"
  address = "{{.Path "snapshotter.sock"}}"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["overlaybd-diff", "walking"]
{{- end}}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "overlaybd"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
`)),
	Debian: template.Must(template.New("debian").Parse(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
` + commonConfig)),
}

// StartContainerd starts containerd and waits until it answers.
func (s *Sandbox) StartContainerd(ctx context.Context, r Release) (*Containerd, error) {
	c := &Containerd{Address: s.Path("containerd.sock"), sandbox: s, release: r}
	var text bytes.Buffer
	if err := containerdConfig[r].Execute(&text, s); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.Path("containerd.toml"), text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// bin is the folder of containerd and its shim.
func (c *Containerd) bin() string {
	if c.release == Debian {
		return c.sandbox.Tools.Debian + "/usr/bin"
	}
	return c.sandbox.Tools.Bin
}

// Start starts containerd again after Stop or Sandbox.Crash.
func (c *Containerd) Start(ctx context.Context) (err error) {
	s := c.sandbox
	env := []string{"PATH=" + strings.Join([]string{c.bin(), s.Tools.Debian + "/usr/sbin", os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":")}
	c.proc, err = s.start("containerd", env, c.bin()+"/containerd", "--log-level", "warn", "--config", s.Path("containerd.toml"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.proc.await(ctx, func(ctx context.Context) error {
		_, err := c.Ctr(ctx, "version")
		return err
	})
}

// Stop ends containerd; containers go on.
func (c *Containerd) Stop(ctx context.Context) { c.proc.Stop(ctx) }

// Ctr runs containerd's own ctr and returns its standard output.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	argv := []string{c.sandbox.Tools.Bin + "/ctr", "--address", c.Address, "--namespace", c.sandbox.Namespace}
	return c.sandbox.Run(ctx, append(argv, args...)...)
}

// Rpull pulls ref lazily with this project's ctr and returns what it printed.
func (c *Containerd) Rpull(ctx context.Context, ref string, flags ...string) (string, error) {
	argv := []string{c.sandbox.Path("bin/ctr"), "--address", c.Address, "--namespace", c.sandbox.Namespace, "rpull"}
	return c.sandbox.Run(ctx, append(append(argv, flags...), ref)...)
}

// RunContainer runs a container of ref to its end, removes it and returns its
// standard output. With no args it runs the image's command.
func (c *Containerd) RunContainer(ctx context.Context, snapshotter, ref, id string, args ...string) (string, error) {
	flags := []string{"run", "--rm", "--fifo-dir", c.sandbox.Path("fifo"), "--snapshotter", snapshotter, ref, id}
	return c.Ctr(ctx, append(flags, args...)...)
}

// Detach starts a container of ref that goes on.
func (c *Containerd) Detach(ctx context.Context, ref, id string, args ...string) error {
	flags := []string{"run", "--detach", "--fifo-dir", c.sandbox.Path("fifo"), "--snapshotter", "overlaybd", ref, id}
	_, err := c.Ctr(ctx, append(flags, args...)...)
	return err
}

// Exec runs a command in a running container and returns its standard output.
func (c *Containerd) Exec(ctx context.Context, id string, args ...string) (string, error) {
	flags := []string{"task", "exec", "--fifo-dir", c.sandbox.Path("fifo"), "--exec-id", "exec", id}
	return c.Ctr(ctx, append(flags, args...)...)
}

// Empty removes all containers and images of the sandbox and waits until
// containerd has dropped their snapshots.
func (c *Containerd) Empty(ctx context.Context) error {
	var errs []error
	tasks, err := c.Ctr(ctx, "task", "ls", "-q")
	errs = append(errs, err)
	for _, id := range strings.Fields(tasks) {
		_, err := c.Ctr(ctx, "task", "rm", "-f", id)
		errs = append(errs, err)
	}
	containers, err := c.Ctr(ctx, "container", "ls", "-q")
	errs = append(errs, err)
	for _, id := range strings.Fields(containers) {
		_, err := c.Ctr(ctx, "container", "rm", id)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.RemoveImages(ctx))...)
}

// RemoveImages removes all images and waits for the garbage collector and
// the snapshotter's cleanup.
func (c *Containerd) RemoveImages(ctx context.Context) error {
	images, err := c.Ctr(ctx, "image", "ls", "-q")
	if err != nil {
		return err
	}
	if refs := strings.Fields(images); len(refs) > 0 {
		if _, err := c.Ctr(ctx, append([]string{"image", "rm", "--sync"}, refs...)...); err != nil {
			return err
		}
	}
	// What a lease of an interrupted pull still holds goes too.
	leases, err := c.Ctr(ctx, "leases", "ls")
	if err != nil {
		return err
	}
	for i, l := range strings.Split(leases, "\n") {
		if f := strings.Fields(l); i > 0 && len(f) > 0 {
			if _, err := c.Ctr(ctx, "leases", "rm", "--sync", f[0]); err != nil {
				return err
			}
		}
	}
	_, err = c.Ctr(ctx, "content", "prune", "references")
	if err != nil {
		return fmt.Errorf("collecting garbage: %w", err)
	}
	return nil
}

// Snapshots returns the names of the snapshotter's snapshots.
func (c *Containerd) Snapshots(ctx context.Context, snapshotter string) ([]string, error) {
	out, err := c.Ctr(ctx, "snapshot", "--snapshotter", snapshotter, "ls")
	var names []string
	for i, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			names = append(names, f[0])
		}
	}
	return names, err
}
