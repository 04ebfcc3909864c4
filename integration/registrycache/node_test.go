package registrycache_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
)

// beginNode starts a machine whose containerd and snapshotter have, for its
// registry, a hosts.toml that names a cache, as the example in contrib does. The
// registry is Debian's; the cache knows it by the name in ns alone.
func beginNode(t *testing.T) (*node.Node, *instance.Instance) {
	t.Helper()
	if _, err := node.Prepare(t.Context()); errors.Is(err, node.ErrNotRoot) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err) // root has the tools, or can have them
	}
	n, err := node.Start(t.Context(), node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.Logs())
		}
		if err := n.Shutdown(context.Background()); err != nil {
			t.Errorf("shutting the node down: %v", err)
		}
	})
	name := n.Proxy.Address
	c := startCache(t.Context(), t, instance.Config{Values: values{"server": values{
		"registries": values{name: values{"host": name, "scheme": "http"}},
	}}})
	dir := n.Path("hosts", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", name, c.Address)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return n, c
}

// command prints a file of a layer and then a word.
var command = []string{"/bin/sh", "-c", "cat /etc/layers; echo done"}

// TestContainerdPulls has ctr pull an ordinary image through the cache, twice: the
// second time no body comes from the registry.
func TestContainerdPulls(t *testing.T) {
	n, c := beginNode(t)
	plain := image.Build{Name: "trial-plain", Rootfs: image.Small(), Args: []string{"/bin/sh", "-c", "echo done"}}
	l, err := plain.Make(t.Context(), filepath.Join(n.Tools.Cache, "images"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Push(t.Context(), l, "plain:1"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		n.Proxy.Reset()
		if _, err := n.Containerd.Ctr(t.Context(), "image", "pull", "--hosts-dir", n.Path("hosts"), "--snapshotter", "overlayfs", n.Ref("plain:1")); err != nil {
			t.Fatal(err)
		}
		if out, err := n.Containerd.RunContainer(t.Context(), "overlayfs", n.Ref("plain:1"), "c"); err != nil || !strings.HasSuffix(out, "done\n") {
			t.Errorf("the container printed %q, %v", out, err)
		}
		s := n.Proxy.Stats()
		t.Logf("pull %d: %d requests to the registry, %d bytes of blobs", i+1, s.Requests, s.BlobBytes)
		if i == 0 && s.BlobBytes == 0 || i == 1 && s.BlobBytes != 0 {
			t.Errorf("pull %d: %d bytes of blobs came from the registry", i+1, s.BlobBytes)
		}
		if err := n.Containerd.Empty(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	served(t, c)
}

// TestLazyLoading has the snapshotter run an overlaybd image through the cache.
func TestLazyLoading(t *testing.T) {
	n, c := beginNode(t)
	small := image.Build{Name: "small", Rootfs: image.Small(), Format: image.Overlaybd{FSType: image.Ext4}, Changes: 2, Args: command}
	l, err := small.Make(t.Context(), filepath.Join(n.Tools.Cache, "images"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Push(t.Context(), l, "small:1"); err != nil {
		t.Fatal(err)
	}
	n.Proxy.Reset()
	if _, err := n.Containerd.Rpull(t.Context(), n.Ref("small:1"), "--hosts-dir", n.Path("hosts")); err != nil {
		t.Fatal(err)
	}
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", n.Ref("small:1"), "c")
	if err != nil || !strings.HasSuffix(out, "done\n") {
		t.Errorf("the container printed %q, %v", out, err)
	}
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	s := n.Proxy.Stats()
	t.Logf("%d requests to the registry, %d of %d bytes of blobs", s.Requests, s.BlobBytes, size)
	if s.BlobBytes == 0 || s.BlobBytes >= size {
		t.Errorf("%d of %d bytes of blobs came from the registry", s.BlobBytes, size)
	}
	served(t, c)
}

// served fails the test unless clients were served by the cache.
func served(t *testing.T, c *instance.Instance) {
	t.Helper()
	m, err := c.Scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := m.Sum("reprise_registry_cache_sent_bytes_total"); n == 0 {
		t.Error("the cache has sent nothing: the node went past it")
	}
}
