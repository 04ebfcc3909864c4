package e2e_test

import (
	"testing"

	"github.com/reprise-containers/reprise/integration/node"

	"github.com/reprise-containers/reprise/integration/sandbox"
)

// TestRestart stops and starts the daemon below a running container.
func TestRestart(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "small:1")
	ref := n.rpull(t, "small:1")
	if err := n.Containerd.Detach(t.Context(), ref, "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	n.Snapshotter.Stop(t.Context())
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Containerd.Exec(t.Context(), "sleeper", "/bin/cat", "/etc/layers"); err != nil || out != "layer 1\nlayer 2\n" {
		t.Errorf("after a restart the container reads %q, %v", out, err)
	}
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "after")
	if err != nil || out != smallOutput {
		t.Errorf("a container started after the restart printed %q, %v", out, err)
	}
	n.ctr(t, "task", "kill", "--signal", "KILL", "sleeper")
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper")
}

// TestReboot takes all processes and mounts away and starts everything again
// from what is on disk, with the registry down at first.
func TestReboot(t *testing.T) {
	n := ownNode(t, node.Options{})
	n.push(t, built(t, small), "small:1")
	ref := n.rpull(t, "small:1")
	if err := n.Containerd.Detach(t.Context(), ref, "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	if err := n.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mounts, err := sandbox.MountsBelow(n.Root); err != nil || len(mounts) > 0 {
		t.Fatalf("the reboot left mounts: %v, %v", mounts, err)
	}
	// An unreachable registry delays nobody's start.
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Containerd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Registry.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "after")
	if err != nil || out != smallOutput {
		t.Errorf("a container started after the reboot printed %q, %v", out, err)
	}
	// The container itself has survived, only its process has not.
	if _, err := n.Containerd.Ctr(t.Context(), "task", "rm", "--force", "sleeper"); err != nil {
		t.Logf("removing the dead task: %v", err)
	}
	n.ctr(t, "task", "start", "--detach", "--fifo-dir", n.Path("fifo"), "sleeper")
	if out, err := n.Containerd.Exec(t.Context(), "sleeper", "/bin/cat", "/etc/layers"); err != nil || out != "layer 1\nlayer 2\n" {
		t.Errorf("after a reboot the container reads %q, %v", out, err)
	}
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper")
}

// TestDebianContainerd is a smoke test on the containerd that Debian ships.
func TestDebianContainerd(t *testing.T) {
	n := ownNode(t, node.Options{Release: sandbox.Debian})
	n.push(t, built(t, small), "small:1")
	n.Proxy.Reset()
	ref := n.rpull(t, "small:1")
	if got := n.Proxy.Stats(); got.BlobRequests == 0 || got.Bytes > 1<<20 {
		t.Errorf("the pull made %d blob requests and fetched %d bytes", got.BlobRequests, got.Bytes)
	}
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "smoke")
	if err != nil || out != smallOutput {
		t.Errorf("the container printed %q, %v", out, err)
	}
}
