// Package node puts a whole machine together in a sandbox: containerd, the
// snapshotter, and a registry behind a counting proxy.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/integration/sandbox/link"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
	"github.com/reprise-containers/reprise/remote/registry"
)

// Node is a running machine. It must be shut down.
type Node struct {
	*sandbox.Sandbox
	Containerd  *sandbox.Containerd
	Snapshotter *sandbox.Snapshotter
	Registry    *sandbox.Registry
	// Proxy is where the snapshotter and containerd see the registry, which
	// itself is reached without passing the line.
	Proxy *wire.Proxy
	// Link is the line to the registry, nil for none.
	Link *link.Link
}

// Options vary a node.
type Options struct {
	Release sandbox.Release
	// Config is more configuration of the snapshotter, by table.
	Config map[string]string
	// Differ has containerd ask the snapshotter for the difference of snapshots.
	Differ bool
	// Line puts the registry behind a line, nil does not.
	Line *link.Line
}

// shutdownTimeout bounds the removal of everything at the end.
const shutdownTimeout = 2 * time.Minute

// ErrNotRoot says that there can be no node because this is not root.
var ErrNotRoot = errors.New("containers and mounts are needed: run this as root")

// Prepare finds the tools or says why there can be no node here.
func Prepare(ctx context.Context) (sandbox.Tools, error) {
	if os.Geteuid() != 0 {
		return sandbox.Tools{}, ErrNotRoot
	}
	return sandbox.FindTools(ctx)
}

// Start builds the commands and starts everything.
func Start(ctx context.Context, o Options) (*Node, error) {
	tools, err := Prepare(ctx)
	if err != nil {
		return nil, err
	}
	s, err := sandbox.New(tools)
	if err != nil {
		return nil, err
	}
	n := &Node{Sandbox: s}
	if err := n.boot(ctx, o); err != nil {
		return nil, errors.Join(err, n.stop(ctx))
	}
	return n, nil
}

func (n *Node) boot(ctx context.Context, o Options) (err error) {
	if err := n.Build(ctx); err != nil {
		return err
	}
	if n.Registry, err = n.StartRegistry(ctx, sandbox.RegistryConfig{Name: "main"}); err != nil {
		return err
	}
	if err := n.listen(ctx, o.Line); err != nil {
		return err
	}
	if n.Snapshotter, err = n.StartSnapshotter(ctx, sandbox.SnapshotterConfig{Extra: o.Config}); err != nil {
		return err
	}
	n.Differ = o.Differ
	n.Containerd, err = n.StartContainerd(ctx, o.Release)
	return err
}

// listen starts the proxy, at the far end of the line if there is one: what
// crosses the line is then between the registry's clients and the proxy.
func (n *Node) listen(ctx context.Context, line *link.Line) (err error) {
	if line == nil {
		n.Proxy, err = wire.Listen(n.Registry.Address)
		return err
	}
	if n.Link, err = link.Up(ctx, *line); err != nil {
		return err
	}
	far, err := n.Link.Listen()
	if err != nil {
		return err
	}
	n.Proxy = wire.Serve(far, n.Registry.Address)
	// Only loopback is spoken to without TLS unless somebody says so.
	dir := n.Path("hosts", n.Proxy.Address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(dir+"/hosts.toml", fmt.Appendf(nil, "server = \"http://%s\"\n", n.Proxy.Address), 0o644)
}

// SetLine puts the registry behind another line, nil behind none. All
// references change, and connections break: there should be no images.
func (n *Node) SetLine(ctx context.Context, line *link.Line) error {
	err := n.Proxy.Close()
	if n.Link != nil {
		err = errors.Join(err, n.Link.Down(ctx))
		n.Link = nil
	}
	return errors.Join(err, n.listen(ctx, line))
}

// Shutdown removes all containers and images, stops everything, and reports
// what was left behind.
func (n *Node) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	n.Proxy.Release()
	return errors.Join(n.Containerd.Empty(ctx), n.stop(ctx))
}

func (n *Node) stop(ctx context.Context) error {
	err := n.Close(ctx)
	if n.Proxy != nil {
		err = errors.Join(err, n.Proxy.Close())
	}
	if n.Link != nil {
		err = errors.Join(err, n.Link.Down(ctx))
	}
	return err
}

// Ref returns the reference of an image "repository:tag" behind the proxy.
func (n *Node) Ref(name string) string { return n.Proxy.Address + "/" + name }

// Push stores an image as "repository:tag", passing by the proxy and at full
// speed.
func (n *Node) Push(ctx context.Context, l image.Layout, name string) error {
	address := n.Registry.Address
	client, err := registry.New(registry.Config{PlainHTTP: []string{address}})
	if err != nil {
		return fmt.Errorf("pushing %s: %w", name, err)
	}
	defer client.Close()
	return l.Push(ctx, client, address+"/"+name)
}
