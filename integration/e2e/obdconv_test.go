package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/integration/tree"
)

// checkers are what examines a file system of a type without writing to it.
var checkers = map[string][]string{
	"ext4": {"e2fsck", "-fn"},
	"xfs":  {"xfs_repair", "-n"},
}

// TestObdconv converts real images of several layers through the kernel, pushes
// them, pulls them lazily on another node, and compares the whole root file system,
// file by file, with the one that containerd and overlayfs make of the original: as
// a view, as a container's root, and as the kernel sees the merged device.
func TestObdconv(t *testing.T) {
	for _, c := range []struct {
		image  image.Layered
		fsType string
		stdout string
		config map[string]string
	}{
		{image: image.Middle(), fsType: "ext4", stdout: "layer 1\nlayer 2\nlayer 3\nlayer 5\ndone\n"},
		{image: image.Middle(), fsType: "xfs", stdout: "layer 1\nlayer 2\nlayer 3\nlayer 5\ndone\n"},
		{image: image.Odd(), fsType: "ext4"},
		{image: largest(), fsType: "ext4", stdout: "scipy 1.10.1 x0 = 0.5\n", config: eager},
	} {
		t.Run(c.image.Name+"-"+c.fsType, func(t *testing.T) {
			t.Parallel()
			builder := ownNode(t, node.Options{})
			source, target := "originals/"+c.image.Name+":1", "obdconv/"+c.image.Name+":1"
			builder.push(t, layered(t, c.image), source)
			want, u := builder.original(t, source)
			checkOriginal(t, c.image.Name, want)
			builder.obdconv(t, source, target, "--fstype", c.fsType)
			if _, err := builder.Containerd.Push(t.Context(), "--plain-http", builder.Ref(target)); err != nil {
				t.Fatal(err)
			}

			// A node that never had anything of it.
			n := ownNode(t, node.Options{Config: c.config})
			ref := builder.Ref(target)
			begin := time.Now()
			pulled, err := n.Containerd.Rpull(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			n.removeLater(t, ref)
			layers := len(c.image.Steps)
			if lazy := strings.Count(pulled, " lazy\n"); lazy != layers {
				t.Errorf("%d of %d layers are lazy:\n%s", lazy, layers, pulled)
			}
			out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", ref, "converted-"+c.image.Name)
			if err != nil || c.stdout != "" && out != c.stdout {
				t.Errorf("the image's command printed %q, %v; want %q", out, err, c.stdout)
			}
			t.Logf("pull and command: %v", time.Since(begin))
			reportDifferences(t, want, n.records(t, ref, lazyView, func() {
				if c.config != nil {
					n.awaitMetric(t, "reprise_images_local", 1)
				}
			}), u)
			reportDifferences(t, want, n.records(t, ref, lazyContainer), u)
			reportDifferences(t, want, builder.checkedDevice(t, target, c.fsType), u)
		})
	}
}

// obdconv pulls an image of the registry in full and converts it through the
// kernel. Nothing but the images is left of it.
func (n machine) obdconv(t *testing.T, source, target string, flags ...string) {
	t.Helper()
	n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", n.Ref(source))
	n.removeLater(t, n.Ref(source))
	temp := t.TempDir()
	begin := time.Now()
	argv := append(append([]string{"obdconv", "--temp-dir", temp}, flags...), n.Ref(source), n.Ref(target))
	out, err := n.Containerd.Ours(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, n.Ref(target))
	t.Logf("%s converted in %v:\n%s", source, time.Since(begin), out)
	n.nothingOf(t, temp)
}

// nothingOf checks that no conversion has left a snapshot, a lease, a mount or a
// file.
func (n machine) nothingOf(t *testing.T, temp string) {
	t.Helper()
	snaps, err := n.Containerd.Snapshots(t.Context(), "overlaybd")
	if err != nil || len(snaps) > 0 {
		t.Errorf("left snapshots %v, %v", snaps, err)
	}
	if leases := strings.TrimSpace(n.ctr(t, "leases", "ls", "-q")); leases != "" {
		t.Errorf("left leases %s", leases)
	}
	if uploads := strings.TrimSpace(n.ctr(t, "content", "active")); strings.Count(uploads, "\n") > 0 {
		t.Errorf("left uploads %s", uploads)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left files %v, %v", left, err)
	}
	if leaks := n.Leaks(); len(leaks) > 0 {
		t.Errorf("leaks: %v", leaks)
	}
}

// checkedDevice writes the merged device of an image to a file, has the file
// system's own checker look at it, mounts it and returns what is in it.
func (n machine) checkedDevice(t *testing.T, name, fsType string) []tree.Record {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.img")
	if _, err := n.Run(t.Context(), n.Path("bin/reprise"), "dump", n.Registry.Address+"/"+name, "-o", disk); err != nil {
		t.Fatal(err)
	}
	checker := checkers[fsType]
	cmd := exec.CommandContext(t.Context(), checker[0], append(checker[1:], disk)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", strings.Join(checker, " "), err, out)
	}
	dev, err := loopdev.AttachBuffered(disk, 1024)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Detach() //nolint:errcheck // the mount shows whether it works
	dir := t.TempDir()
	options := map[string]string{"ext4": "noload", "xfs": "norecovery,nouuid"}[fsType]
	if err := unix.Mount(dev.Path, dir, fsType, unix.MS_RDONLY, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0) //nolint:errcheck // the next mount would fail
	records, err := tree.Walk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// TestObdconvOnBase converts the ordinary layer that committing a container of an
// image that was converted before has put on top: its layers stay.
func TestObdconvOnBase(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, layered(t, image.Middle()), "originals/middle:1")
	n.obdconv(t, "originals/middle:1", "obdconv/middle:1", "--vsize", "10")
	// It runs here without having been pulled: containerd unpacks it.
	want := "layer 1\nlayer 2\nlayer 3\nlayer 5\ndone\n"
	if out, err := n.Containerd.RunContainer(t.Context(), "overlaybd", n.Ref("obdconv/middle:1"), "here"); err != nil || out != want {
		t.Errorf("not pulled, it printed %q, %v", out, err)
	}
	if _, err := n.Containerd.Push(t.Context(), "--plain-http", n.Ref("obdconv/middle:1")); err != nil {
		t.Fatal(err)
	}
	ref := n.rpull(t, "obdconv/middle:1")
	n.detach(t, ref, "box", "echo committed > /srv/committed; rm /etc/layers; touch /ready")
	if _, err := n.Containerd.Ours(t.Context(), "commit", "box", n.Ref("committed:1")); err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, n.Ref("committed:1"))
	out, err := n.Containerd.Ours(t.Context(), "obdconv", n.Ref("committed:1"), n.Ref("flat:1"))
	if err != nil {
		t.Fatal(err)
	}
	n.removeLater(t, n.Ref("flat:1"))
	if kept := strings.Count(out, " kept"); kept != len(image.Middle().Steps) {
		t.Errorf("%d layers were kept:\n%s", kept, out)
	}
	if _, err := n.Containerd.Push(t.Context(), "--plain-http", n.Ref("flat:1")); err != nil {
		t.Fatal(err)
	}
	fresh := ownNode(t, node.Options{})
	if _, err := fresh.Containerd.Rpull(t.Context(), n.Ref("flat:1")); err != nil {
		t.Fatal(err)
	}
	fresh.removeLater(t, n.Ref("flat:1"))
	got, err := fresh.Containerd.RunContainer(t.Context(), "overlaybd", n.Ref("flat:1"), "flat", "/bin/sh", "-c", "cat /srv/committed; ls /etc/layers; echo end")
	if err != nil || got != "committed\nend\n" {
		t.Errorf("it printed %q, %v", got, err)
	}
}

// TestObdconvInterrupted interrupts a conversion, and has one fail at its last
// layer.
func TestObdconvInterrupted(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{})
	n.push(t, layered(t, image.Middle()), "originals/middle:1")
	n.ctr(t, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", n.Ref("originals/middle:1"))
	n.removeLater(t, n.Ref("originals/middle:1"))
	temp := t.TempDir()
	for i, after := range []time.Duration{200 * time.Millisecond, 600 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		p, err := n.Containerd.StartOurs(fmt.Sprintf("obdconv-%d", i), "obdconv", "--temp-dir", temp, n.Ref("originals/middle:1"), n.Ref("interrupted:1"))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
		case <-time.After(after):
		}
		ended := p.Signal(unix.SIGINT) != nil
		<-p.Done()
		text, err := p.Log()
		t.Logf("%d: interrupted after %v, had ended %v: %s, %v", i, after, ended, text, err)
		// Without a word: the signal came before there was anything to remove.
		if !ended && text != "" && !strings.Contains(text, "cancel") && !strings.Contains(text, "layers converted") {
			t.Errorf("it says %q", text)
		}
		n.nothingOf(t, temp)
		if images := n.ctr(t, "image", "ls", "-q"); strings.Contains(images, "interrupted") {
			t.Log("it was converted before the interruption")
			n.ctr(t, "image", "rm", "--sync", n.Ref("interrupted:1"))
		}
	}
	// The last layer is not here.
	_, m, err := layered(t, image.Middle()).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	last := m.Layers[len(m.Layers)-1].Digest.String()
	n.ctr(t, "content", "rm", last)
	_, err = n.Containerd.Ours(t.Context(), "obdconv", "--temp-dir", temp, n.Ref("originals/middle:1"), n.Ref("interrupted:1"))
	if err == nil || !strings.Contains(err.Error(), last) {
		t.Errorf("without its last layer: %v", err)
	}
	n.nothingOf(t, temp)
}
