package reference_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/integration/image"
	"github.com/reprise-containers/reprise/integration/reference"
	"github.com/reprise-containers/reprise/integration/sandbox"
	"github.com/reprise-containers/reprise/remote/blob"
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
	for _, f := range []image.FSType{image.Ext4, image.Erofs} {
		b := image.Build{Name: "scipy-" + string(f), Rootfs: image.Scipy(), Format: image.Overlaybd{FSType: f}, Args: image.ScipyCommand()}
		l, err := b.Make(t.Context(), filepath.Join(tools.Cache, "images"), t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		r, err := reference.Run{l.Disk(), f, b.Args}.Measure(t.Context(), s, c)
		_, m, _ := l.Manifest()
		bl, err := blob.OpenFile(l.BlobPath(m.Layers[0]))
		if err != nil {
			t.Fatal(err)
		}
		img, err := backstore.Open(t.Context(), []blob.ReaderAt{bl})
		if err != nil {
			t.Fatal(err)
		}
		cost, err := r.Cost(img)
		st, _ := os.Stat(l.Disk())
		t.Logf("%s disk %d MB blob %d MB: %s %d extents %d blocks %v %v %+v segs %d", f, st.Size()>>20, bl.Size()>>20, r.Stdout, len(r.Extents), len(r.Blocks()), r.Wall, err, cost, img.Len())
	}
}
