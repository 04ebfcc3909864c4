package fusedev_test

import (
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

var fsTypes = []string{"ext4", "erofs"}

// TestMountReads mounts an image and compares the tree inside.
func TestMountReads(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	makeTree(t, src, 20<<20)
	want, err := treeSum(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			image := makeImage(t, fsType, src)
			site := newSite(t)
			s := site.open(t)
			d := daemonDevice{ID: "image", Image: image, Target: site.target(t, "m")}
			dev, err := d.open()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(t.Context(), d.ID, dev); err != nil {
				t.Fatal(err)
			}
			if err := s.Mount(t.Context(), d.ID, fusedev.Mount{Target: d.Target}); err != nil {
				t.Fatal(err)
			}
			got, err := sumOf(t, d.Target)
			if err != nil || got != want {
				t.Errorf("sum = %s, %v; want %s", got, err, want)
			}
			mounts, err := s.Mounts()
			if err != nil || len(mounts) != 1 || mounts[0].ID != d.ID || mounts[0].FSType != fsType {
				t.Errorf("Mounts() = %+v, %v", mounts, err)
			}
			t.Logf("%+v %+v", mounts, s.Stats())
			if err := s.SetReadahead(t.Context(), d.ID, 1024); err != nil {
				t.Error(err)
			}
			if err := s.Unmount(t.Context(), d.Target); err != nil {
				t.Error(err)
			}
			if err := s.Remove(t.Context(), d.ID); err != nil {
				t.Error(err)
			}
		})
	}
}
