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

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
)

// machine is a node with what tests often do on it.
type machine struct{ *node.Node }

// shared is the node of all tests that leave it as they found it.
var shared = sync.OnceValues(func() (*node.Node, error) {
	sharedStarted.Store(true)
	return node.Start(context.Background(), node.Options{})
})

var sharedStarted atomic.Bool

// onNode returns the shared node; it skips the test where there can be none.
func onNode(t *testing.T) machine {
	t.Helper()
	if _, err := node.Prepare(t.Context()); errors.Is(err, node.ErrNotRoot) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err) // root has the tools, or can have them
	}
	n, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, n)
	return machine{n}
}

// ownNode returns a node that the test may crash; it is shut down, and
// checked for leaks, at the end of the test.
func ownNode(t *testing.T, o node.Options) machine {
	t.Helper()
	if _, err := node.Prepare(t.Context()); errors.Is(err, node.ErrNotRoot) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err) // root has the tools, or can have them
	}
	n, err := node.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Shutdown(context.Background()); err != nil {
			t.Errorf("shutting the node down: %v", err)
		}
	})
	logsOnFailure(t, n)
	return machine{n}
}

func logsOnFailure(t *testing.T, n *node.Node) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.Logs())
		}
	})
}

// push stores an image in the registry.
func (n machine) push(t *testing.T, l image.Layout, name string) {
	t.Helper()
	if err := n.Push(t.Context(), l, name); err != nil {
		t.Fatal(err)
	}
}

// rpull pulls lazily and removes the image at the end of the test.
func (n machine) rpull(t *testing.T, name string, flags ...string) string {
	t.Helper()
	if _, err := n.Containerd.Rpull(t.Context(), n.Ref(name), flags...); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, n.Ref(name))
	return n.Ref(name)
}

func (n machine) removeLater(t *testing.T, ref string) {
	t.Cleanup(func() {
		if _, err := n.Containerd.Ctr(context.Background(), "image", "rm", "--sync", ref); err != nil {
			t.Error(err)
		}
	})
}

// ctr runs containerd's own ctr.
func (n machine) ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.Containerd.Ctr(t.Context(), args...)
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
			if err := n.Shutdown(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, "shutting the shared node down:", err)
				fmt.Fprintln(os.Stderr, n.Logs())
				code = 1
			}
		}
	}
	os.Exit(code)
}
