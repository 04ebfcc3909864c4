package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
}

// inMemory puts temporary directories of the test into memory if it can: the
// suite makes thousands of snapshots, each of which waits for the disk.
func inMemory(t *testing.T) {
	t.Helper()
	const dir, need = "/dev/shm", 64 << 20
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.TMPFS_MAGIC && st.Bavail*uint64(st.Bsize) >= need {
		t.Setenv("TMPDIR", dir)
	}
}

// mountDevices is a Devices that mounts the same file system for every image:
// an erofs on a loop device, or where that can't be made a directory.
type mountDevices struct {
	root  string
	mount mount.Mount

	mu    sync.Mutex
	calls int
	nth   int // every nth call fails, 0: none
}

// always is the context of a caller whose calls do not fail.
type always struct{}

func newMountDevices(t *testing.T, root, content string, nth int) *mountDevices {
	t.Helper()
	d := &mountDevices{root: root, nth: nth}
	img := filepath.Join(t.TempDir(), "image.erofs")
	if out, err := exec.Command("mkfs.erofs", "--quiet", img, content).CombinedOutput(); err != nil {
		t.Logf("no erofs, a directory is mounted instead: %v %s", err, out)
		d.mount = mount.Mount{Type: "bind", Source: content, Options: []string{"rbind", "ro"}}
		return d
	}
	d.mount = mount.Mount{Type: "erofs", Source: img, Options: []string{"ro", "loop"}}
	return d
}

func (d *mountDevices) fails(ctx context.Context, call string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.nth == 0 || d.calls%d.nth != 0 || ctx.Value(always{}) != nil {
		return nil
	}
	return fmt.Errorf("%s, call %d: %w", call, d.calls, errInjected)
}

func (d *mountDevices) Attach(ctx context.Context, _ string, _ backstore.Image, target string) error {
	failure := d.fails(ctx, "attach")
	if failure != nil && d.calls%2 == 0 {
		return failure // else: having mounted, which is worse than allowed
	}
	mounted, err := mountinfo.Mounted(target)
	if err == nil && !mounted {
		err = d.mount.Mount(target)
	}
	if err == nil {
		err = failure
	}
	return err
}

func (d *mountDevices) Detach(ctx context.Context, _, target string) error {
	if err := d.fails(ctx, "detach"); err != nil {
		return err
	}
	if mounted, err := mountinfo.Mounted(target); err != nil || !mounted {
		return err
	}
	return unix.Unmount(target, 0)
}

func (d *mountDevices) Recover(_ context.Context, images []backstore.Attachment) (ids []string, err error) {
	wanted := map[string]string{}
	for _, a := range images {
		wanted[a.Target] = a.ID
	}
	mounts, err := mountsBelow(d.root)
	for _, m := range mounts {
		if id, ok := wanted[m]; ok {
			ids = append(ids, id)
		} else if err := unix.Unmount(m, 0); err != nil {
			return nil, err
		}
	}
	return ids, err
}

// leaks returns the mounts and loop devices that are left.
func (d *mountDevices) leaks() ([]string, error) {
	left, err := mountsBelow(d.root)
	if err != nil {
		return nil, err
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && strings.TrimSpace(string(file)) == d.mount.Source {
			left = append(left, filepath.Base(filepath.Dir(filepath.Dir(l))))
		}
	}
	return left, err
}

func mountsBelow(dir string) (points []string, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	for _, m := range mounts {
		points = append(points, m.Mountpoint)
	}
	return points, err
}

// TestMountedRootIsNotRemoved: while a container's overlay is mounted its
// snapshot stays, and so does the image below.
func TestMountedRootIsNotRemoved(t *testing.T) {
	needRoot(t)
	content := t.TempDir()
	if err := os.WriteFile(filepath.Join(content, "hello"), []byte("from the image"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newMountNode(t, content)
	top := n.pull("base")
	m := n.run("c", top)
	dir := t.TempDir()
	n.must(mount.All(m, dir))
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	if got, err := os.ReadFile(filepath.Join(dir, "hello")); err != nil || string(got) != "from the image" {
		t.Errorf("read %q, %v", got, err)
	}
	n.must(os.WriteFile(filepath.Join(dir, "written"), []byte("by the container"), 0o644))
	checkRefused(t, n.Remove(t.Context(), "c"), dir)

	// An image that was unmounted behind the snapshotter's back comes back.
	n.must(unix.Unmount(option(t, m, "lowerdir"), 0))
	again, err := n.Mounts(t.Context(), "c")
	n.must(err)
	if mounted, err := mountinfo.Mounted(option(t, again, "lowerdir")); err != nil || !mounted {
		t.Errorf("the image is not mounted again: %v", err)
	}

	n.must(unix.Unmount(dir, 0))
	n.must(n.Remove(t.Context(), "c"))
	left, err := n.mounts.leaks()
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestForeignMount: what is mounted in a snapshot's directory, by whomever, is
// not emptied with it.
func TestForeignMount(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	top := n.pull("base")
	n.run("c", top)
	target := n.fake.targets()[0]
	content := t.TempDir()
	file := filepath.Join(content, "precious")
	n.must(os.WriteFile(file, []byte("x"), 0o644))
	n.must(unix.Mount(content, target, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	n.must(n.Remove(t.Context(), "c"))
	n.must(n.Remove(t.Context(), top))
	if err := n.Cleanup(t.Context()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Cleanup says %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	n.must(unix.Unmount(target, 0))
	n.must(n.Cleanup(t.Context()))
	checkNothingLeft(t, n.cfg.Root)
}
