package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/integration/sandbox/wire"
	"github.com/reprise-containers/reprise/remote/registry"
)

// node is a machine with everything on it: containerd, the snapshotter, and a
// registry behind a counting proxy.
type node struct {
	*sandbox.Sandbox
	containerd  *sandbox.Containerd
	snapshotter *sandbox.Snapshotter
	registry    *sandbox.Registry
	proxy       *wire.Proxy
}

// options vary a node.
type options struct {
	release sandbox.Release
	config  map[string]string // more configuration of the snapshotter
}

// shared is the node of all tests that leave it as they found it.
var shared = sync.OnceValues(func() (*node, error) {
	sharedStarted.Store(true)
	return start(context.Background(), options{})
})

var sharedStarted atomic.Bool

// prepare says why end-to-end tests can't run here, or finds the tools.
func prepare(ctx context.Context) (sandbox.Tools, error) {
	if os.Geteuid() != 0 {
		return sandbox.Tools{}, errors.New("end-to-end tests mount file systems and run containers: run them as root")
	}
	return sandbox.FindTools(ctx)
}

func start(ctx context.Context, o options) (*node, error) {
	tools, err := prepare(ctx)
	if err != nil {
		return nil, err
	}
	s, err := sandbox.New(tools)
	if err != nil {
		return nil, err
	}
	n := &node{Sandbox: s}
	if err := n.boot(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return n, nil
}

func (n *node) boot(ctx context.Context, o options) (err error) {
	if err := n.Build(ctx); err != nil {
		return err
	}
	if n.registry, err = n.StartRegistry(ctx, sandbox.RegistryConfig{Name: "main"}); err != nil {
		return err
	}
	if n.proxy, err = wire.Listen(n.registry.Address); err != nil {
		return err
	}
	if n.snapshotter, err = n.StartSnapshotter(ctx, sandbox.SnapshotterConfig{Extra: o.config}); err != nil {
		return err
	}
	n.containerd, err = n.StartContainerd(ctx, o.release)
	return err
}

// shutDown removes all images and reports what they left behind.
func (n *node) shutDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	n.proxy.Release()
	err := n.containerd.Empty(ctx)
	return errors.Join(err, n.Close(ctx), n.proxy.Close())
}

// onNode returns the shared node; it skips the test where there can be none.
func onNode(t *testing.T) *node {
	t.Helper()
	if _, err := prepare(t.Context()); err != nil {
		t.Skip(err)
	}
	n, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, n)
	return n
}

// ownNode returns a node that the test may crash; it is shut down, and
// checked for leaks, at the end of the test.
func ownNode(t *testing.T, o options) *node {
	t.Helper()
	if _, err := prepare(t.Context()); err != nil {
		t.Skip(err)
	}
	n, err := start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.shutDown(context.Background()); err != nil {
			t.Errorf("shutting the node down: %v", err)
		}
	})
	logsOnFailure(t, n)
	return n
}

func logsOnFailure(t *testing.T, n *node) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.Logs())
		}
	})
}

// ref returns the reference of an image behind the proxy.
func (n *node) ref(name string) string { return n.proxy.Address + "/" + name }

// push stores an image in the registry under the name "repository:tag",
// passing by the proxy.
func (n *node) push(t *testing.T, l image.Layout, name string) {
	t.Helper()
	c, err := registry.New(registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Push(t.Context(), c, n.registry.Address+"/"+name); err != nil {
		t.Fatal(err)
	}
}

// rpull pulls lazily and removes the image at the end of the test.
func (n *node) rpull(t *testing.T, name string, flags ...string) string {
	t.Helper()
	if _, err := n.containerd.Rpull(t.Context(), n.ref(name), flags...); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, n.ref(name))
	return n.ref(name)
}

func (n *node) removeLater(t *testing.T, ref string) {
	t.Cleanup(func() {
		if _, err := n.containerd.Ctr(context.Background(), "image", "rm", "--sync", ref); err != nil {
			t.Error(err)
		}
	})
}

// ctr runs containerd's own ctr.
func (n *node) ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.containerd.Ctr(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// golden returns the folder of images made by the original tools, which are
// not part of the source tree.
func golden(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../shared/golden/images")
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		t.Skip("no golden images beside the source tree: ", err)
	}
	return dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if sharedStarted.Load() {
		if n, err := shared(); err == nil {
			if err := n.shutDown(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, "shutting the shared node down:", err)
				fmt.Fprintln(os.Stderr, n.Logs())
				code = 1
			}
		}
	}
	os.Exit(code)
}
