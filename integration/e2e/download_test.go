package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/node"
)

// eager downloads everything as soon as nobody is looking.
var eager = map[string]string{"download": "enabled = true\ndelay = \"1s\"\nidle = \"300ms\"\n"}

// awaitMetric waits until a metric of the snapshotter has a value.
func (n machine) awaitMetric(t *testing.T, name string, want float64) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got, err := n.Snapshotter.Metric(t.Context(), name)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v, %v; want %v", name, got, err, want)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// unchanged drops the files that further layers change.
func unchanged(lines []string) (kept []string) {
	for _, l := range lines {
		if !strings.Contains(l, "  /etc/layers") && !strings.Contains(l, "  /var/changes/") {
			kept = append(kept, l)
		}
	}
	return kept
}

// TestDownload lets an image be downloaded below a running container and ends
// the registry: from then on everything can be read, by that container, and
// after a restart of the daemon, without the cache, by new ones.
func TestDownload(t *testing.T) {
	n := ownNode(t, node.Options{Config: eager})
	b := faulty("download")
	b.Changes = 2
	n.push(t, built(t, b), "download:1")
	ref := n.rpull(t, "download:1")
	if err := n.Containerd.Detach(t.Context(), ref, "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	n.awaitMetric(t, "reprise_download_layers_total", 3)
	n.awaitMetric(t, "reprise_images_local", 1)

	n.Registry.Stop(t.Context())
	want := unchanged(sums(t, rootfs(t, b.Rootfs)))
	out, err := n.Containerd.Exec(t.Context(), "sleeper", "/bin/sh", "-c", sumScript)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, unchanged(sorted(out)), want)

	n.ctr(t, "task", "kill", "--signal", "KILL", "sleeper")
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper") // which detaches the image
	n.Snapshotter.Stop(t.Context())
	if err := os.RemoveAll(n.Path("snapshotter", "cache")); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshotter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err = n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "offline")
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, unchanged(sorted(out)), want)
	if n, err := n.Snapshotter.Metric(t.Context(), "reprise_cache_blobs"); err != nil || n > 0 {
		t.Errorf("the cache has %v blobs, %v: they were asked for", n, err)
	}
}

// TestRemoveWhileDownloading removes an image in the middle of its download.
func TestRemoveWhileDownloading(t *testing.T) {
	slow := map[string]string{"download": eager["download"] + "image_rate = \"256KiB\"\n"}
	n := ownNode(t, node.Options{Config: slow})
	b := faulty("removed while downloading")
	n.push(t, built(t, b), "removed:1")
	if _, err := n.Containerd.Rpull(t.Context(), n.Ref("removed:1")); err != nil {
		t.Fatal(err)
	}
	if err := n.Containerd.Detach(t.Context(), n.Ref("removed:1"), "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	partial := n.Path("snapshotter", "snapshots", "*", "fs", ".download")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if found, err := filepath.Glob(partial); err != nil || len(found) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the download does not begin")
		}
	}
	n.ctr(t, "task", "kill", "--signal", "KILL", "sleeper")
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper")
	n.ctr(t, "image", "rm", "--sync", n.Ref("removed:1"))
	if left, err := filepath.Glob(n.Path("snapshotter", "snapshots", "*")); err != nil || len(left) > 0 {
		t.Errorf("the removed image left %v, %v", left, err)
	}
}

// TestKillWhileDownloading kills the daemon in the middle of a download: the
// next one goes on where it was.
func TestKillWhileDownloading(t *testing.T) {
	n := ownNode(t, node.Options{Config: map[string]string{"download": eager["download"] + "image_rate = \"512KiB\"\n"}})
	b := faulty("killed while downloading")
	l := built(t, b)
	n.push(t, l, "killed:1")
	ref := n.rpull(t, "killed:1")
	if err := n.Containerd.Detach(t.Context(), ref, "sleeper", "/bin/sleep", "100000"); err != nil {
		t.Fatal(err)
	}
	partial := n.Path("snapshotter", "snapshots", "*", "fs", ".download")
	var had int64
	for deadline := time.Now().Add(time.Minute); had == 0; time.Sleep(20 * time.Millisecond) {
		found, err := filepath.Glob(partial)
		if err == nil && len(found) == 1 {
			if st, err := os.Stat(found[0]); err == nil {
				had = st.Size()
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the download does not begin")
		}
	}
	if err := n.Snapshotter.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What the cache has is not to be what saves the bytes.
	if err := os.RemoveAll(n.Path("snapshotter", "cache")); err != nil {
		t.Fatal(err)
	}
	n.Proxy.Reset()
	if err := n.Snapshotter.Reconfigure(t.Context(), eager); err != nil {
		t.Fatal(err)
	}
	n.awaitMetric(t, "reprise_download_layers_total", 1)
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Proxy.Stats().Bytes; got > size-had+had/2 {
		t.Errorf("%d bytes crossed the wire after %d of %d had been downloaded", got, had, size)
	}
	n.Registry.Stop(t.Context())
	out, err := n.Containerd.Exec(t.Context(), "sleeper", "/bin/sh", "-c", sumScript)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, sorted(out), sums(t, rootfs(t, b.Rootfs)))
	n.ctr(t, "task", "kill", "--signal", "KILL", "sleeper")
	n.ctr(t, "task", "rm", "--force", "sleeper")
	n.ctr(t, "container", "rm", "sleeper")
}
