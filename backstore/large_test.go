package backstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/backstore/zfile"
	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	tib       = int64(1) << 40
	largeDisk = 9 * tib // sectors above 2^32, and above 2^33
)

// patch is what is written to a disk.
type patch struct {
	off  int64
	data []byte
}

// model is a disk of which only what was written is kept, by blocks of 4 KiB.
type model map[int64][]byte

func (m model) apply(patches []patch) {
	for _, p := range patches {
		for at := 0; at < len(p.data); at += 4096 {
			m[p.off+int64(at)] = p.data[at:min(at+4096, len(p.data))]
		}
	}
}

// check compares all that was ever written with r, and that what is around it is
// zeros.
func (m model) check(t *testing.T, r blob.ReaderAt) {
	t.Helper()
	buf := make([]byte, 4096)
	for off, want := range m {
		if err := blob.ReadFull(t.Context(), r, buf, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, want) {
			t.Fatalf("block at %d (sector %d) differs", off, off/lsmt.SectorSize)
		}
		for _, next := range []int64{off - 4096, off + 4096} {
			if _, ok := m[next]; ok || next < 0 || next >= r.Size() {
				continue
			}
			if err := blob.ReadFull(t.Context(), r, buf, next); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf, make([]byte, 4096)) {
				t.Fatalf("block at %d beside what was written is not zeros", next)
			}
		}
	}
}

// patches makes n writes of 4 to 64 KiB all over a disk, some of them at the
// borders where a sector number needs one bit more.
func patches(rng *rand.Rand, size int64, n int) []patch {
	var all []patch
	for i := range n {
		off := rng.Int64N(size/4096) * 4096
		switch borders := []int64{0, 2*tib - 8192, 2 * tib, 4*tib - 4096, size - 16*4096}; {
		case i < len(borders) && borders[i] < size:
			off = borders[i]
		case i%3 == 0 && len(all) > 0:
			off = all[rng.IntN(len(all))].off // over something
		}
		length := min(int64(1+rng.IntN(16))*4096, size-off)
		p := patch{off: off, data: make([]byte, length)}
		for j := range p.data {
			p.data[j] = byte(rng.Uint32())
		}
		all = append(all, p)
	}
	return all
}

// disk is a sparse file that patches are written to.
func disk(t *testing.T, size int64, all []patch) *lsmt.SparseFile {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Skipf("no files of %d bytes here: %v", size, err)
	}
	for _, p := range all {
		if _, err := f.WriteAt(p.data, p.off); err != nil {
			t.Fatal(err)
		}
	}
	s, err := lsmt.OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// blobOf writes a layer blob with its chunk table and returns it.
func blobOf(t *testing.T, commit func(io.Writer) error) blob.ReaderAt {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), backstore.LayerFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b, err := backstore.WriteBlob(t.Context(), f, zfile.Options{}, commit)
	if err != nil {
		t.Fatal(err)
	}
	raw := readFile(t, f.Name())
	if "sha256:"+sum(raw) != b.Digest.String() || int64(len(raw)) != b.Size {
		t.Errorf("blob of %d bytes is said to have %d, and another digest", len(raw), b.Size)
	}
	return memory(raw)
}

// TestLargeDisks commits disks above 2 TiB, stacks what comes out, merges it, and
// reads back what was written with sectors that 32 bits can't count.
func TestLargeDisks(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	want := model{}
	var layers []blob.ReaderAt
	var below blob.ReaderAt
	var all []patch
	for range 3 {
		fresh := patches(rng, largeDisk, 60)
		for range min(len(all), 10) { // zeros where layers below have something
			old := all[rng.IntN(len(all))]
			fresh = append(fresh, patch{old.off, make([]byte, len(old.data))})
		}
		want.apply(fresh)
		all = append(all, fresh...)
		opts := lsmt.DiskOptions{Base: below}
		layers = append(layers, blobOf(t, func(w io.Writer) error {
			return lsmt.CommitDisk(t.Context(), w, disk(t, largeDisk, all), opts)
		}))
		image, err := backstore.Open(t.Context(), layers)
		if err != nil {
			t.Fatal(err)
		}
		if image.Size() != largeDisk {
			t.Fatalf("size is %d, want %d", image.Size(), largeDisk)
		}
		want.check(t, image)
		below = image
	}
	merged := blobOf(t, func(w io.Writer) error {
		return below.(*lsmt.Image).Commit(t.Context(), w, lsmt.Identity{})
	})
	one, err := backstore.Open(t.Context(), []blob.ReaderAt{merged})
	if err != nil {
		t.Fatal(err)
	}
	want.check(t, one)
	// The upper two alone hide what they made zeros of, on the lowest one.
	upper, err := backstore.Open(t.Context(), layers[1:])
	if err != nil {
		t.Fatal(err)
	}
	part := blobOf(t, func(w io.Writer) error { return upper.Commit(t.Context(), w, lsmt.Identity{}) })
	both, err := backstore.Open(t.Context(), []blob.ReaderAt{layers[0], part})
	if err != nil {
		t.Fatal(err)
	}
	want.check(t, both)
	far := 0
	for s := range upper.Segments() {
		if s.Zeroed && s.Offset >= 1<<32 {
			far++
		}
	}
	if far == 0 {
		t.Error("the test made nothing read as zeros above 2 TiB")
	}
}

// TestDeepStack stacks as many layers as the format can, on a disk above 2 TiB,
// each with something over and something beside those below; merges all of them,
// and parts of them; and is told what to do about one more.
func TestDeepStack(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 1))
	want := model{}
	var layers []blob.ReaderAt
	var before []patch
	for i := range backstore.MaxLayers {
		fresh := patches(rng, 3*tib, 6)
		if len(before) > 0 { // over a lower layer, sometimes with zeros
			old := before[rng.IntN(len(before))]
			fresh = append(fresh, patch{old.off, make([]byte, len(old.data))})
		}
		want.apply(fresh)
		before = append(before, fresh...)
		layers = append(layers, blobOf(t, func(w io.Writer) error { return writePatches(w, fresh, int64(i)) }))
	}
	image, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	want.check(t, image)
	if n := len(image.Streams()); n != backstore.MaxLayers {
		t.Errorf("%d layers", n)
	}
	for _, sparse := range []bool{false, true} {
		writeOn(t, image, maps.Clone(want), patches(rng, 3*tib, 30), sparse)
	}
	merged := blobOf(t, func(w io.Writer) error { return image.Commit(t.Context(), w, lsmt.Identity{}) })
	one, err := backstore.Open(t.Context(), []blob.ReaderAt{merged})
	if err != nil {
		t.Fatal(err)
	}
	want.check(t, one)

	_, err = backstore.Open(t.Context(), append(layers[:len(layers):len(layers)], merged))
	if err == nil || !strings.Contains(err.Error(), "256 layers") || !strings.Contains(err.Error(), "reprise layer merge") {
		t.Errorf("256 layers: %v, want what to do about it", err)
	}
	// What the error says: merge some, and there is room again.
	lower, err := backstore.Open(t.Context(), layers[:100])
	if err != nil {
		t.Fatal(err)
	}
	base := blobOf(t, func(w io.Writer) error { return lower.Commit(t.Context(), w, lsmt.Identity{}) })
	fewer, err := backstore.Open(t.Context(), append([]blob.ReaderAt{base}, layers[100:]...))
	if err != nil {
		t.Fatal(err)
	}
	want.check(t, fewer)
}

// writeOn writes to a new layer on an image, reads all of the disk back, also after
// it was opened again.
func writeOn(t *testing.T, lower *lsmt.Image, want model, all []patch, sparse bool) {
	t.Helper()
	dir := t.TempDir()
	files := lsmt.UpperFiles{Data: dir + "/data", Index: dir + "/index"}
	opts := lsmt.UpperOptions{Sparse: sparse}
	if sparse {
		opts.VirtualSize = lower.Size()
	}
	if err := lsmt.CreateUpper(files, opts); err != nil {
		t.Fatal(err)
	}
	for again := range 2 {
		u, err := lsmt.OpenUpper(t.Context(), files, lower)
		if err != nil {
			t.Fatal(err)
		}
		if again == 0 {
			for _, p := range all {
				if _, err := u.WriteAt(t.Context(), p.data, p.off); err != nil {
					t.Fatal(err)
				}
			}
			far := slices.Max(slices.Collect(maps.Keys(want))) // of what lies below
			if err := u.Discard(t.Context(), far, 4096); err != nil {
				t.Fatal(err)
			}
			want.apply(append(all, patch{far, make([]byte, 4096)}))
		}
		want.check(t, u)
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writePatches writes a layer of patches; only the bottom one says how large the
// disk is.
func writePatches(w io.Writer, all []patch, layer int64) error {
	id := lsmt.Identity{UUID: fmt.Sprintf("00000000-0000-4000-8000-%012X", layer), VirtualSize: 3 * tib}
	disk := model{}
	disk.apply(all)
	c, err := lsmt.NewCommitter(w, id)
	if err != nil {
		return err
	}
	for _, off := range slices.Sorted(maps.Keys(disk)) {
		if err := c.Data(off, disk[off]); err != nil {
			return err
		}
	}
	return c.Finish()
}

// TestSizeWarning: who makes a device that overlaybd can't read is told.
func TestSizeWarning(t *testing.T) {
	for size, warned := range map[int64]bool{0: false, 64 << 30: false, 2 * tib: false, 2*tib + 512: true, largeDisk: true} {
		if got := backstore.SizeWarning(size); (got != "") != warned {
			t.Errorf("%d bytes: %q", size, got)
		}
	}
}

var errBroken = errors.New("broken")

// TestWriteBlobFails: an error of what writes the stream, or of the disk, is one
// of the blob.
func TestWriteBlobFails(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := backstore.WriteBlob(t.Context(), f, zfile.Options{}, func(io.Writer) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("error is %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if _, err := backstore.WriteBlob(t.Context(), full, zfile.Options{}, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 4<<20))
		return err
	}); err == nil {
		t.Error("a full disk is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backstore.WriteBlob(ctx, f, zfile.Options{BlockSize: 1000}, func(io.Writer) error { return nil }); err == nil {
		t.Error("blocks of 1000 bytes are no error")
	}
}
