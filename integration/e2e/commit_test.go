package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/node"
	"github.com/reprise-containers/reprise/snapshot/labels"
)

// detach starts a container that runs a script and stays, and waits for the script,
// which makes /ready.
func (n machine) detach(t *testing.T, ref, id, script string) {
	t.Helper()
	if err := n.Containerd.Detach(t.Context(), ref, id, "/bin/sh", "-c", script+"; sleep 100000"); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := n.Containerd.Exec(t.Context(), id, "/bin/ls", "/ready"); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		default:
			pause(50, 100)
		}
	}
}

// stop ends the task of a container and leaves the container and its snapshot.
func (n machine) stop(t *testing.T, id string) {
	t.Helper()
	n.ctr(t, "task", "rm", "-f", id)
}

// writes is what a container does to its root: many small files, a large one that is
// synced, a file of a lower layer that is changed, one that is removed, metadata.
const writes = `set -e
mkdir -p /data/gone /data/deep/er
for i in $(seq 300); do echo "file $i" > /data/$i; done
dd if=/bin/busybox of=/data/deep/er/busybox conv=fsync 2>/dev/null
dd if=/dev/zero of=/data/zeros bs=1024 count=4000 conv=fsync 2>/dev/null
dd if=/bin/busybox of=/data/zeros bs=512 count=3 seek=1000 conv=notrunc,fsync 2>/dev/null
rm -r /data/gone /data/1??
rm /var/changes/rewritten
echo changed >> /etc/layers
touch /ready`

// state prints the sum of every file, and all other names, but for /after.
const state = `find / -xdev -type f ! -name after | sort | xargs sha256sum; find / -xdev ! -type f | sort`

// TestWritableContainers runs containers that write to their roots, commits them and
// runs what was committed, for each kind of root: as layers of files by containerd's
// own differ, and as overlaybd layers.
func TestWritableContainers(t *testing.T) {
	for mode, fsType := range map[string]string{"overlayfs": "overlay", "dir": "ext4", "dev": "ext4"} {
		for _, differ := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s differ=%t", mode, differ), func(t *testing.T) {
				t.Parallel()
				n := ownNode(t, node.Options{Differ: differ, Config: map[string]string{"writable": fmt.Sprintf("rw_mode = %q\n", mode)}})
				n.push(t, built(t, small), "small:1")
				n.writeAndCommit(t, n.rpull(t, "small:1"), writes, fsType, differ)
			})
		}
	}
}

// TestCommitErofs commits a container on an image that only overlayfs can lie on.
func TestCommitErofs(t *testing.T) {
	t.Parallel()
	n := ownNode(t, node.Options{Differ: true, Config: map[string]string{"writable": "rw_mode = \"dir\"\n"}})
	n.push(t, layered(t, image.Middle()), "middle:1")
	n.convert(t, "middle:1", "erofs:1")
	n.writeAndCommit(t, n.rpull(t, "erofs:1"), strings.Replace(writes, "/var/changes/rewritten", "/usr/bin/less", 1), "overlay", true)
}

// writeAndCommit does what TestWritableContainers does, on an image.
func (n machine) writeAndCommit(t *testing.T, ref, script, rootType string, differ bool) {
	t.Helper()
	n.detach(t, ref, "box", script)
	want, err := n.Containerd.Exec(t.Context(), "box", "/bin/sh", "-c", state)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := n.Containerd.Exec(t.Context(), "box", "/bin/cat", "/proc/mounts")
	if err != nil || !strings.Contains(mounts, " / "+rootType+" ") {
		t.Errorf("the root is not of %s but: %s, %v", rootType, mounts, err)
	}
	// containerd's own differ mounts a device, which it can't while the container
	// has it mounted otherwise.
	if device := rootType != "overlay" && !strings.Contains(mounts, "/mountpoint"); device && !differ {
		n.stop(t, "box")
		n.commit(t, "box", want, differ)
	} else {
		n.commit(t, "box", want, differ)
		if _, err := n.Containerd.Exec(t.Context(), "box", "/bin/touch", "/after"); err != nil {
			t.Errorf("the container after it was committed: %v", err)
		}
		n.stop(t, "box")
	}
	n.commitSnapshot(t, "box", want)
	n.ctr(t, "container", "rm", "box")
}

// commit commits a container, and compares containers of that image here and on a
// node that pulls it lazily with want.
func (n machine) commit(t *testing.T, id, want string, overlaybd bool) {
	t.Helper()
	committed := n.Ref("committed:1")
	out, err := n.Containerd.Ours(t.Context(), "commit", "-m", "test", "-c", `CMD ["/bin/sh", "-c", "echo by command"]`, id, committed)
	if err != nil {
		t.Errorf("committing: %v", err)
		return
	}
	t.Log(out)
	n.removeLater(t, committed)
	n.compareState(t, n, committed, want)
	if _, err := n.Containerd.Push(t.Context(), "--plain-http", committed); err != nil {
		t.Fatal(err)
	}
	fresh := ownNode(t, node.Options{})
	if _, err := fresh.Containerd.Rpull(t.Context(), committed); err != nil {
		t.Fatal(err)
	}
	fresh.removeLater(t, committed)
	m := n.manifest(t, "committed:1")
	top := m.Layers[len(m.Layers)-1].Annotations
	if table := top[labels.ChunksRoot]; overlaybd != (table != "" && top[labels.BlobDigest] != "") {
		t.Errorf("the layer has annotations %v", top)
	}
	n.compareState(t, fresh, committed, want)
}

// compareState runs containers of an image on a node.
func (machine) compareState(t *testing.T, on machine, ref, want string) {
	t.Helper()
	got, err := on.Containerd.RunContainer(t.Context(), "overlaybd", ref, "again", "/bin/sh", "-c", state)
	if err != nil {
		t.Error(err)
	}
	compareTrees(t, sorted(got), sorted(want))
	got, err = on.Containerd.RunContainer(t.Context(), "overlaybd", ref, "command")
	if err != nil || got != "by command\n" {
		t.Errorf("the image's command printed %q, %v", got, err)
	}
}

// commitSnapshot commits the snapshot of a container itself, and runs a container on
// a new one on it.
func (n machine) commitSnapshot(t *testing.T, key, want string) {
	t.Helper()
	n.ctr(t, "snapshot", "--snapshotter", "overlaybd", "commit", "committed", key)
	root := n.Path("root-" + key)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	n.ctr(t, "snapshot", "--snapshotter", "overlaybd", "prepare", "again", "committed")
	mounts, err := n.dial(t).Mounts(t.Context(), n.snapshotKey(t, "again"))
	if err == nil {
		err = mount.All(mounts, root)
	}
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for range 3 {
		// On a busy machine ctr ends now and then before it has read what a container
		// printed that ended at once.
		got, err = n.Containerd.Ctr(t.Context(), "run", "--rm", "--fifo-dir", n.Path("fifo"), "--rootfs", root, "rooted", "/bin/sh", "-c", state)
		if err != nil || got != "" {
			break
		}
	}
	if err != nil {
		t.Error(err)
	}
	compareTrees(t, sorted(got), sorted(want))
	if err := mount.UnmountAll(root, 0); err != nil {
		t.Error(err)
	}
	n.ctr(t, "snapshot", "--snapshotter", "overlaybd", "rm", "again")
	n.ctr(t, "snapshot", "--snapshotter", "overlaybd", "rm", "committed")
}

// snapshotKey returns what the snapshotter itself calls a snapshot of containerd.
func (n machine) snapshotKey(t *testing.T, name string) string {
	t.Helper()
	found := ""
	err := n.dial(t).Walk(t.Context(), func(_ context.Context, i snapshots.Info) error {
		if strings.HasSuffix(i.Name, "/"+name) {
			found = i.Name
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("the snapshotter has no %s: %v", name, err)
	}
	return found
}
