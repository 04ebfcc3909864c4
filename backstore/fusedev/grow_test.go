package fusedev_test

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mayResize reports whether this process may do what needs CAP_SYS_RESOURCE.
func mayResize() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// TestGrowFS grows a device below a file system that is being written.
func TestGrowFS(t *testing.T) {
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
			w := startWriter(t, target)
			if err := d.f.Truncate(3 << 30); err != nil {
				t.Fatal(err)
			}
			if err := s.Resized(t.Context(), "d"); err != nil {
				t.Fatal(err)
			}
			err := s.GrowFS(t.Context(), "d", target)
			if fsType == "ext4" && !mayResize() {
				if err == nil || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
					t.Errorf("GrowFS without the capability = %v", err)
				}
			} else if err != nil {
				t.Error(err)
			} else if n := blocks(t, target); n < 2<<30/1024 {
				t.Errorf("the file system has %d KiB", n)
			}
			w.kill(t)
			mounts, err := s.Mounts()
			if err != nil || len(mounts) != 1 {
				t.Fatalf("Mounts() = %v, %v", mounts, err)
			}
			dev := mounts[0].Source
			if got := shell(t, `blockdev --getsize64 "$1"`, dev); got != strconv.Itoa(3<<30) {
				t.Errorf("%s has %s bytes", dev, got)
			}
			shell(t, `cd "$1"; sha256sum -c --quiet sums`, target)
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
			fsck(t, fsType, file)
		})
	}
}

// blocks returns the size of the file system on target in KiB.
func blocks(t testing.TB, target string) int {
	t.Helper()
	n, err := strconv.Atoi(shell(t, `df --output=size -k "$1" | tail -n 1 | tr -d ' '`, target))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
