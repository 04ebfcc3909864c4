package reference_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/reference"
	"github.com/reprise-containers/reprise/integration/sandbox"
)

func TestMeasure(t *testing.T) {
	tools, err := sandbox.FindTools(t.Context())
	if err != nil {
		t.Skip(err)
	}
	s, err := sandbox.New(tools)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	c, err := s.StartContainerd(t.Context(), sandbox.Current)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		fs  image.Rootfs
		cmd []string
	}{{image.Scipy(), image.ScipyCommand()}} {
		root, err := x.fs.Build(t.Context(), filepath.Join(tools.Cache, "images"), t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []image.FSType{image.Ext4, image.Erofs} {
			disk := s.Path("disk." + string(f))
			if err := image.MakeDisk(t.Context(), f, root, disk); err != nil {
				t.Fatal(err)
			}
			st, _ := os.Stat(disk)
			for range 3 {
				r, err := reference.Run{disk, f, x.cmd}.Measure(t.Context(), s, c)
				t.Logf("%s %d MB: %s %d extents %d blocks %v %v", f, st.Size()>>20, r.Stdout, len(r.Extents), len(r.Blocks()), r.Wall, err)
			}
		}
	}
}
