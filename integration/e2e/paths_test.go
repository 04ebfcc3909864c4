package e2e_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
)

const smallOutput = "layer 1\nlayer 2\ndone\n"

// TestPaths brings the same image to a container on each way containerd has,
// and compares what the container prints and what crosses the network.
func TestPaths(t *testing.T) {
	n := onNode(t)
	l := built(t, small)
	n.push(t, l, "small:1")
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	ref := n.Ref("small:1")
	for _, c := range []struct {
		name string
		pull func(t *testing.T)
		lazy bool
	}{
		{"rpull", func(t *testing.T) {
			if _, err := n.Containerd.Rpull(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"rpull download", func(t *testing.T) {
			if _, err := n.Containerd.Rpull(t.Context(), ref, "--download-blobs"); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"transfer service", func(t *testing.T) {
			n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", "overlaybd", ref)
		}, true},
		{"plain pull", func(t *testing.T) {
			n.ctr(t, "image", "pull", "--local", "--plain-http", "--snapshotter", "overlaybd", ref)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.Proxy.Reset()
			c.pull(t)
			n.removeLater(t, ref)
			if got := n.Proxy.Stats(); c.lazy && got.Bytes > size/2 {
				t.Errorf("a lazy pull fetched %d bytes of an image of %d", got.Bytes, size)
			}
			id := strings.ReplaceAll(c.name, " ", "-")
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, id)
			if err != nil || out != smallOutput {
				t.Errorf("the container printed %q, %v; want %q", out, err, smallOutput)
			}
		})
	}
}

// TestOrdinaryImage runs an image that is not overlaybd at all.
func TestOrdinaryImage(t *testing.T) {
	n := onNode(t)
	l := built(t, image.Build{Name: "ordinary", Rootfs: image.Small(), Args: []string{"/bin/sh", "-c", sumScript}})
	n.push(t, l, "ordinary:1")
	want := sums(t, rootfs(t, image.Small()))
	for _, snapshotter := range []string{"overlayfs", "overlaybd"} {
		t.Run(snapshotter, func(t *testing.T) {
			ref := n.Ref("ordinary:1")
			n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", snapshotter, ref)
			n.removeLater(t, ref)
			out, err := n.Containerd.RunContainer(t.Context(), snapshotter, ref, "ordinary-"+snapshotter)
			if err != nil {
				t.Fatal(err)
			}
			compareTrees(t, sorted(out), want)
		})
	}
}

func sorted(text string) []string {
	return slices.Sorted(slices.Values(strings.Split(strings.TrimSuffix(text, "\n"), "\n")))
}

// TestWholeImage reads every file of an image of each file system through
// containers, twice: from the registry and from the cache.
func TestWholeImage(t *testing.T) {
	n := onNode(t)
	want := sums(t, rootfs(t, image.Numpy()))
	for _, fs := range []image.FSType{image.Ext4, image.Erofs, image.XFS} {
		t.Run(string(fs), func(t *testing.T) {
			l := built(t, numpy(fs))
			n.push(t, l, "numpy:"+string(fs))
			ref := n.rpull(t, "numpy:"+string(fs))
			// A full queue to a busy disk drops a store, see package cache: then some
			// bytes come again.
			var again int64
			for _, id := range []string{"cold", "warm"} {
				n.Proxy.Reset()
				out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, id+"-"+string(fs), "/bin/sh", "-c", sumScript)
				if err != nil {
					t.Fatal(err)
				}
				compareTrees(t, sorted(out), want)
				got := n.Proxy.Stats()
				t.Logf("%s: %d requests, %d bytes, at most %d in flight", id, got.Requests, got.Bytes, got.MaxInFlight)
				if id == "warm" && got.BlobBytes > ownReads[fs]+again {
					t.Errorf("reading what is cached fetched %d bytes", got.BlobBytes)
				}
				again = got.BlobBytes / 1000
			}
		})
	}
}

// ownReads bounds the bytes that a file system reads at a time of its own: XFS
// looks at its allocation groups when it first has a reason to.
var ownReads = map[image.FSType]int64{image.XFS: 4 * 4096}

// TestLayersXFS runs an image of three layers whose file system is XFS, changed by
// a mount for each layer, and compares all of it with what those mounts left.
func TestLayersXFS(t *testing.T) {
	n := onNode(t)
	b := small
	b.Name, b.Format.FSType = "small-xfs", image.XFS
	n.push(t, built(t, b), "small:xfs")
	ref := n.rpull(t, "small:xfs")
	out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "small-xfs")
	if err != nil || out != smallOutput {
		t.Errorf("the container printed %q, %v; want %q", out, err, smallOutput)
	}
	const changes = `cat /var/changes/rewritten; ls /var/changes; wc -c </var/changes/new-2; touch /var/changes/mine && rm -r /etc/layers && echo ok`
	out, err = n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "small-xfs-changes", "/bin/sh", "-c", changes)
	if want := "by layer 2new-2\nrewritten\n20000\nok\n"; err != nil || out != want {
		t.Errorf("the container printed %q, %v; want %q", out, err, want)
	}
}

// numpy is an image of about a hundred MB.
func numpy(fs image.FSType) image.Build {
	return image.Build{Name: "numpy-" + string(fs), Rootfs: image.Numpy(),
		Format: image.Overlaybd{FSType: fs}, Args: image.NumpyCommand()}
}

// TestNerdctl runs what people type, where nerdctl is installed.
func TestNerdctl(t *testing.T) {
	if _, err := exec.LookPath("nerdctl"); err != nil {
		t.Skip("nerdctl is not on PATH")
	}
	n := onNode(t)
	n.push(t, built(t, small), "nerdctl:1")
	nerdctl := func(args ...string) string {
		argv := []string{"nerdctl", "--address", n.Containerd.Address, "--namespace", n.Namespace,
			"--snapshotter", "overlaybd", "--insecure-registry", "--data-root", n.Path("nerdctl")}
		out, err := n.Run(t.Context(), append(argv, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	nerdctl("pull", "--quiet", n.Ref("nerdctl:1"))
	n.removeLater(t, n.Ref("nerdctl:1"))
	if out := nerdctl("run", "--rm", "--net", "none", n.Ref("nerdctl:1")); out != smallOutput {
		t.Errorf("the container printed %q, want %q", out, smallOutput)
	}
}
