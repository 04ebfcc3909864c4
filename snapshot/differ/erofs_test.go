package differ_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/convert"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// converted returns a converted layer with the files of below, of a device of size
// bytes.
func (w *world) converted(size int64) blob.Blob {
	w.t.Helper()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(below)) {
		err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(below[name]))})
		if err == nil {
			_, err = io.WriteString(tw, below[name])
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	err := tw.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := convert.NewChain(convert.Options{VirtualSize: size, Compression: w.cfg.Compression, Dir: w.t.TempDir()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Add(w.ctx, &archive, convert.ID{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(w.t.TempDir(), "blob")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := l.Write(w.ctx, f); err != nil {
		w.t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return blobtest.Bytes(data)
}

// onErofs has the snapshot lie on an image of these layers. The function returned
// says how often they were opened, and are open.
func (w *world) onErofs(layers ...blob.ReaderAt) func() (opened, open int) {
	n, closed := 0, 0
	w.snaps.image = &backstore.Image{FSType: "erofs"}
	w.cfg.Layers = func(backstore.Image) ([]blob.ReaderAt, func(), error) {
		n++
		return layers, func() { closed++ }, nil
	}
	return func() (int, int) { return n, n - closed }
}

// TestCompareErofs makes a layer of a container on an image that the kernel does
// not write: the files that differ are converted. Again it is the same layer.
func TestCompareErofs(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	base := w.converted(1 << 20)
	opened := w.onErofs(base)
	lower, upper := tree(t, below), tree(t, above)
	desc, err := w.differ().Compare(w.ctx, lower, upper, diff.WithLabels(map[string]string{"first": "1"}))
	if err != nil {
		t.Fatal(err)
	}
	layer := w.checkLayer(desc, "erofs", map[string]string{"first": "1"})
	again, err := w.differ().Compare(w.ctx, lower, upper, diff.WithLabels(map[string]string{"second": "2"}))
	if err != nil || again.Digest != desc.Digest {
		t.Fatalf("again, it is %v, %v, not %v", again, err, desc)
	}
	w.checkLayer(again, "erofs", map[string]string{"first": "1", "second": "2"})
	if n, open := opened(); n != 2 || open != 0 {
		t.Errorf("layers were opened %d times, %d are open", n, open)
	}

	img, err := backstore.Open(t.Context(), []blob.ReaderAt{base, layer})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range with(above, map[string]string{"dir/gone": "", "emptied/a": ""}) {
		ranges, missing, err := files.Ranges(t.Context(), img, []string{"/" + strings.TrimSuffix(name, "/")})
		if err != nil {
			t.Fatal(err)
		}
		if _, there := above[name]; there != (len(missing) == 0) {
			t.Errorf("%s is missing: %t", name, there)
		}
		if want == "" {
			continue
		}
		got := make([]byte, len(want))
		if _, err := img.ReadAt(t.Context(), got, ranges[0].Off); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
}

// TestCompareErofsFails has layers that can't be opened or were made otherwise, and
// more files than the device has room for.
func TestCompareErofsFails(t *testing.T) {
	needRoot(t)
	noise := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	large := with(above, map[string]string{"large": string(noise)})
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		spoil func(t *testing.T, w *world)
		is    error
		says  string
	}{
		"no room": {says: "device"},
		"layers can't be opened": {is: boom, spoil: func(_ *testing.T, w *world) {
			w.cfg.Layers = func(backstore.Image) ([]blob.ReaderAt, func(), error) { return nil, nil, boom }
		}},
		"no layers": {is: lsmt.ErrFormat, spoil: func(_ *testing.T, w *world) { w.onErofs(blobtest.Bytes(make([]byte, 1<<16))) }},
		"another writer": {is: errdefs.ErrNotImplemented, spoil: func(t *testing.T, w *world) {
			t.Helper()
			w.onErofs(odd(t))
		}},
		"process fails": {says: "exit status 3", spoil: func(_ *testing.T, w *world) {
			w.cfg.Command = []string{"/bin/sh", "-c", "head -c 1 >/dev/null; exit 3"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			opened := w.onErofs(w.converted(1 << 20))
			if c.spoil != nil {
				c.spoil(t, w)
			}
			_, err := w.differ().Compare(w.ctx, tree(t, below), tree(t, large))
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Compare = %v, want %v %q", err, c.is, c.says)
			}
			if _, open := opened(); open != 0 {
				t.Errorf("%d times, layers were left open", open)
			}
			w.checkNothingStored()
		})
	}
}

// odd returns a layer of a device that is not a whole number of blocks long.
func odd(t *testing.T) blob.Blob {
	t.Helper()
	path := filepath.Join(t.TempDir(), "odd")
	files := lsmt.UpperFiles{Data: path, Index: path + ".index"}
	if err := lsmt.CreateUpper(files, lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: 1<<20 + 512}}); err != nil {
		t.Fatal(err)
	}
	u, err := lsmt.OpenUpper(t.Context(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(u.Seal(t.Context()), u.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return blobtest.Bytes(data)
}
