package fusedev_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// writableTypes are the file systems that can be written.
var writableTypes = []string{"ext4", "xfs"}

// disk is a device.Writable in a sparse file, which other processes can open
// too, as a next daemon does.
type disk struct {
	f      *os.File
	broken atomic.Bool // fails writes
}

func openDisk(name string) (*disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	return &disk{f: f}, err
}

func (d *disk) Size() int64 {
	st, err := d.f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

func (d *disk) ReadAt(_ context.Context, p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

func (d *disk) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	if d.broken.Load() {
		return 0, devicetest.ErrInjected
	}
	return d.f.WriteAt(p, off)
}

func (d *disk) Discard(_ context.Context, off, n int64) error {
	return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *disk) Flush(context.Context) error { return d.f.Sync() }

var _ device.Writable = (*disk)(nil)

// newDisk makes a disk of size bytes and returns its file.
func (s *site) newDisk(t testing.TB, name string, size int64) string {
	t.Helper()
	name = filepath.Join(s.dir, name)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

// addDisk opens the disk in a file and adds it as id.
func addDisk(t testing.TB, s *fusedev.Server, id, file string) *disk {
	t.Helper()
	d, err := openDisk(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.f.Close() })
	mustAdd(t, s, id, d)
	return d
}

// shell runs a script in another process, as everything that touches mounts is,
// and returns what it printed.
func shell(t testing.TB, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", script, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// fsck checks the file system in a file, which must not be mounted.
func fsck(t testing.TB, fsType, file string) {
	t.Helper()
	if fsType == "xfs" {
		shell(t, `xfs_repair -n -f "$1" 2>&1`, file)
		return
	}
	shell(t, `e2fsck -fn "$1"`, file)
}

// mountedDisk formats a new disk and mounts it for writing.
func mountedDisk(t testing.TB, site *site, s *fusedev.Server, fsType string) (file, target string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs." + fsType); err != nil {
		t.Skipf("needs mkfs.%s (packages e2fsprogs, xfsprogs)", fsType)
	}
	file, target = site.newDisk(t, "disk", 1<<30), site.target(t, "m")
	addDisk(t, s, "d", file)
	if err := s.Format(t.Context(), "d", fsType, ""); err != nil {
		t.Fatal(err)
	}
	mountDisk(t, s, target)
	return file, target
}

func mountDisk(t testing.TB, s *fusedev.Server, target string) {
	t.Helper()
	if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: target, Writable: true}); err != nil {
		t.Fatal(err)
	}
}

// TestWritable formats, mounts, writes and unmounts, and does so again.
func TestWritable(t *testing.T) {
	src := t.TempDir()
	makeTree(t, src, 10<<20)
	want, err := treeSum(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, fsType := range writableTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			file, target := mountedDisk(t, site, s, fsType)
			mounts, err := s.Mounts()
			if err != nil || len(mounts) != 1 || mounts[0].FSType != fsType {
				t.Fatalf("Mounts() = %+v, %v", mounts, err)
			}
			checkQueue(t, mounts[0].Source)
			options := shell(t, `findmnt -n -o FS-OPTIONS "$1"`, target)
			if !strings.Contains(options, "discard") || fsType == "ext4" && !strings.Contains(options, "noinit_itable") {
				t.Errorf("mounted with %s", options)
			}
			shell(t, `mkdir "$2/tree"; cp -r "$1/." "$2/tree"`, src, target)
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			fsck(t, fsType, file)
			// Everything is with the device now.
			other := site.newDisk(t, "copy", 0)
			shell(t, `cp --sparse=always "$1" "$2"`, file, other)
			if err := s.Remove(t.Context(), "d"); err != nil {
				t.Fatal(err)
			}
			addDisk(t, s, "d", other)
			mountDisk(t, s, target)
			if got, err := sumOf(t, target+"/tree"); err != nil || got != want {
				t.Errorf("sum = %s, %v; want %s", got, err, want)
			}
			shell(t, `rm -r "$1/tree"; fstrim "$1"`, target)
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			fsck(t, fsType, other)
		})
	}
}

// checkQueue checks the limits of a loop device that can be written.
func checkQueue(t *testing.T, dev string) {
	t.Helper()
	for name, want := range map[string]string{
		"nr_requests": "32", "max_sectors_kb": "256", "read_ahead_kb": "0",
		"logical_block_size": "512", "discard_granularity": "4096",
	} {
		file := filepath.Join("/sys/block", filepath.Base(dev), "queue", name)
		got, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %s, %v; want %s", file, bytes.TrimSpace(got), err, want)
		}
	}
	if max := shell(t, `cat /sys/block/$1/queue/discard_max_bytes`, filepath.Base(dev)); len(max) < 9 {
		t.Errorf("discards are limited to %s bytes", max)
	}
}

// TestWritableRefuses asks for what cannot be written.
func TestWritableRefuses(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	target := site.target(t, "m")
	writable := fusedev.Mount{Target: target, Writable: true}

	mustAdd(t, s, "ro", devicetest.Bytes(make([]byte, 1<<20)))
	if err := s.Format(t.Context(), "ro", "ext4", ""); !errors.Is(err, fusedev.ErrReadOnly) {
		t.Errorf("Format of a read-only device = %v", err)
	}
	m := writable
	m.FSType = "ext4"
	if err := s.Mount(t.Context(), "ro", m); !errors.Is(err, fusedev.ErrReadOnly) {
		t.Errorf("writable Mount of a read-only device = %v", err)
	}
	addDisk(t, s, "erofs", makeImage(t, "erofs", t.TempDir()))
	if err := s.Mount(t.Context(), "erofs", writable); !errors.Is(err, fusedev.ErrReadOnlyFS) {
		t.Errorf("writable Mount of erofs = %v", err)
	}
	if err := s.Format(t.Context(), "erofs", "erofs", ""); !errors.Is(err, fusedev.ErrReadOnlyFS) {
		t.Errorf("Format as erofs = %v", err)
	}
	if err := s.Format(t.Context(), "none", "ext4", ""); !errors.Is(err, fusedev.ErrNotFound) {
		t.Errorf("Format of an unknown device = %v", err)
	}

	mountedDisk(t, site, s, "ext4")
	if err := s.Format(t.Context(), "d", "ext4", ""); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Format of a mounted device = %v", err)
	}
	if dev, err := s.Loop(t.Context(), "d"); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Loop of a mounted device = %q, %v", dev, err)
	}
	if err := s.Format(t.Context(), "d", "ext4", "-d /etc"); err == nil {
		t.Error("Format with the option -d succeeded")
	}
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// TestWritablePinned unmounts while another mount namespace has a copy.
func TestWritablePinned(t *testing.T) {
	for _, fsType := range writableTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			site.cfg.Patience = 300e6
			s := site.open(t)
			file, target := mountedDisk(t, site, s, fsType)
			end := cloneNamespace(t)
			defer end()
			shell(t, `echo before >"$1/f"`, target)
			// Also if the mount point is asked about again.
			for range 2 {
				if err := s.Unmount(t.Context(), target); !errors.Is(err, fusedev.ErrPinned) {
					t.Errorf("Unmount = %v, want ErrPinned", err)
				}
			}
			if err := s.Format(t.Context(), "d", fsType, ""); !errors.Is(err, fusedev.ErrBusy) {
				t.Errorf("Format of a pinned device = %v, want ErrBusy", err)
			}
			// The copy and a new mount are one file system.
			mountDisk(t, s, target)
			if got := shell(t, `cat "$1/f"; echo after >"$1/f"`, target); got != "before" {
				t.Errorf("file contains %q", got)
			}
			if err := s.Unmount(t.Context(), target); !errors.Is(err, fusedev.ErrPinned) {
				t.Errorf("Unmount = %v, want ErrPinned", err)
			}
			end()
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Errorf("Unmount after the end of the other namespace = %v", err)
			}
			fsck(t, fsType, file)
		})
	}
}

// TestWritableBusy unmounts while a file is open.
func TestWritableBusy(t *testing.T) {
	site := newSite(t)
	site.cfg.Patience = 100e6
	s := site.open(t)
	_, target := mountedDisk(t, site, s, "ext4")
	cmd := exec.Command("sleep", "300")
	cmd.Dir = target
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context(), target); !errors.Is(err, fusedev.ErrBusy) {
		t.Errorf("Unmount = %v, want ErrBusy", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// TestUnsyncedIsReported unmounts a file system whose device does not take what
// was written.
func TestUnsyncedIsReported(t *testing.T) {
	for _, fsType := range writableTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			file, target := site.newDisk(t, "disk", 1<<30), site.target(t, "m")
			d := addDisk(t, s, "d", file)
			if err := s.Format(t.Context(), "d", fsType, ""); err != nil {
				t.Fatal(err)
			}
			mountDisk(t, s, target)
			shell(t, `dd if=/dev/zero of="$1/f" bs=64k count=10 2>&1`, target)
			d.broken.Store(true)
			if err := s.Unmount(t.Context(), target); !errors.Is(err, fusedev.ErrUnsynced) {
				t.Errorf("Unmount = %v, want ErrUnsynced", err)
			}
			// It is unmounted all the same.
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Errorf("second Unmount = %v", err)
			}
		})
	}
}

// checks is an observer of file system checks.
type checks struct {
	recorder
	reports []string
}

func (c *checks) FileSystemChecked(id, report string) {
	c.reports = append(c.reports, id+": "+report)
}

// TestUncleanIsChecked mounts what was on the disk when the machine stopped.
func TestUncleanIsChecked(t *testing.T) {
	if _, err := exec.LookPath("fsck.ext4"); err != nil {
		t.Skip("needs fsck.ext4 (package e2fsprogs)")
	}
	site := newSite(t)
	seen := &checks{}
	site.cfg.Observer = seen
	s := site.open(t)
	file, target := mountedDisk(t, site, s, "ext4")
	shell(t, `echo kept >"$1/f"; sync -f "$1"`, target)
	crashed := site.newDisk(t, "crashed", 0)
	shell(t, `cp --sparse=always "$1" "$2"`, file, crashed)
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	addDisk(t, s, "d", crashed)
	if len(seen.reports) > 0 {
		t.Errorf("checked without need: %q", seen.reports)
	}
	mountDisk(t, s, target)
	if len(seen.reports) != 1 || !strings.Contains(seen.reports[0], "fsck.ext4 -p") {
		t.Errorf("reports: %q", seen.reports)
	}
	t.Log(seen.reports)
	if got := shell(t, `cat "$1/f"`, target); got != "kept" {
		t.Errorf("file contains %q", got)
	}
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// TestUnmountUnderMemoryPressure fills a file system from within a small memory
// cgroup, unmounts it and looks at what the device has by then.
func TestUnmountUnderMemoryPressure(t *testing.T) {
	for _, fsType := range writableTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			s := site.open(t)
			file, target := mountedDisk(t, site, s, fsType)
			group := memoryGroup(t, 32<<20)
			want := shell(t, `echo $$ >"$1"; exec 9>"$2/f"
				openssl rand 1000000 >"$2/r"
				i=0; while [ $i -lt 150 ]; do cat "$2/r" >&9; i=$((i+1)); done
				exec 9>&-; sha256sum <"$2/f"`, group, target)
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			fsck(t, fsType, file)
			direct := site.target(t, "direct")
			got := shell(t, `mount -o loop,ro "$1" "$2"; trap 'umount "$2"' EXIT; sha256sum <"$2/f"`, file, direct)
			if got != want {
				t.Errorf("the device has %s, %s was written", got, want)
			}
		})
	}
}

// memoryGroup makes a cgroup with a limit of so many bytes and returns the file
// to write the number of a process to.
func memoryGroup(t testing.TB, limit int) string {
	t.Helper()
	for _, c := range []struct{ root, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		// Not in a directory that is none of cgroups.
		if _, err := os.Stat(filepath.Join(c.root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(c.root, fmt.Sprintf("fusedev-test-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { waitFor(t, "removal of "+dir, func() bool { return os.Remove(dir) == nil }) })
		if os.WriteFile(filepath.Join(dir, c.file), fmt.Appendf(nil, "%d", limit), 0o644) == nil {
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	t.Skip("needs a memory cgroup controller")
	return ""
}
