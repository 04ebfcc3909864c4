package fusedev_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// fsTypes are those that most tests use.
var fsTypes = []string{"ext4", "erofs"}

// TestMountReads mounts images and compares the tree inside, with and without
// kernel readahead.
func TestMountReads(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	makeTree(t, src, 20<<20)
	want, err := treeSum(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, fsType := range append(fsTypes, "xfs") {
		t.Run(fsType, func(t *testing.T) {
			dev, err := daemonDevice{Image: makeImage(t, fsType, src)}.open()
			if err != nil {
				t.Fatal(err)
			}
			site := newSite(t)
			s, target := site.open(t), site.target(t, "m")
			mustAdd(t, s, "image", dev)
			if err := s.Mount(t.Context(), "image", fusedev.Mount{Target: target}); err != nil {
				t.Fatal(err)
			}
			mounts, err := s.Mounts()
			if err != nil || len(mounts) != 1 || mounts[0].ID != "image" || mounts[0].FSType != fsType {
				t.Errorf("Mounts() = %+v, %v", mounts, err)
			}
			// Mounting again changes nothing.
			if err := s.Mount(t.Context(), "image", fusedev.Mount{Target: target}); err != nil {
				t.Errorf("second Mount: %v", err)
			}
			cold := compareTree(t, s, target, want)
			if err := s.SetReadahead(t.Context(), "image", 1024); err != nil {
				t.Error(err)
			}
			warm := compareTree(t, s, target, want)
			t.Logf("%s from %s: %d bytes a request without readahead, %d with", fsType, mounts[0].Source, cold, warm)
			if cold > 8192 || warm < 4*cold {
				t.Errorf("%d bytes a request without readahead, %d with", cold, warm)
			}
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
			if err := s.Remove(t.Context(), "image"); err != nil {
				t.Error(err)
			}
		})
	}
}

// compareTree compares a tree and returns the bytes a request it took.
func compareTree(t *testing.T, s *fusedev.Server, target, want string) int64 {
	t.Helper()
	before := stats(s, "image")
	if got, err := sumOf(t, target); err != nil || got != want {
		t.Errorf("sum = %s, %v; want %s", got, err, want)
	}
	after := stats(s, "image")
	return (after.Bytes - before.Bytes) / max(1, after.Requests-before.Requests)
}
