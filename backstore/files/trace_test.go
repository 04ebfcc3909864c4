package files_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
)

// TestTrace makes traces of lists and checks that they cover the files.
func TestTrace(t *testing.T) {
	dir := filestest.Tree(t)
	images(t, dir, func(t *testing.T, dev blob.ReaderAt) {
		var b bytes.Buffer
		if err := lsmt.CommitDisk(t.Context(), &b, dev, lsmt.DiskOptions{}); err != nil {
			t.Fatal(err)
		}
		layers := []blob.ReaderAt{blobtest.Bytes(b.Bytes())}
		trace := checkTrace(t, layers, []string{"/usr/bin/app", "/few/", "/bin/up", "/nowhere"}, []string{"/nowhere"})
		var n int64
		for _, r := range trace {
			n += r.Count
		}
		if n > 5<<20 {
			t.Errorf("the trace has %d bytes for files of some 4000000", n)
		}
	})
}

// checkTrace returns the trace of a list, which it compares with the ranges that
// the list means.
func checkTrace(t *testing.T, layers []blob.ReaderAt, paths, lost []string) tracelayer.Trace {
	t.Helper()
	trace, missing, err := files.Trace(t.Context(), layers, paths)
	if err != nil || !slices.Equal(missing, lost) {
		t.Fatalf("Trace misses %q, %v; want %q", missing, err, lost)
	}
	img, err := backstore.Open(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	ranges, missing, err := files.Ranges(t.Context(), img, paths)
	if err != nil || !slices.Equal(missing, lost) {
		t.Fatalf("Ranges misses %q, %v; want %q", missing, err, lost)
	}
	if _, err := tracelayer.Decode(trace.Encode()); err != nil {
		t.Error(err)
	}
	const sector = lsmt.SectorSize
	covered := map[[2]int64]bool{} // sectors by layer
	for _, r := range trace {
		for s := r.Off / sector; s*sector < r.Off+r.Count; s++ {
			covered[[2]int64{int64(r.Layer), s}] = true
		}
	}
	segments := slices.Collect(img.Segments())
	for _, r := range ranges {
		for _, s := range segments {
			from, to := max(s.Offset, r.Off/sector), min(s.Offset+s.Length, (r.Off+r.Size+sector-1)/sector)
			for at := from; at < to && !s.Zeroed; at++ {
				if !covered[[2]int64{int64(s.Layer), s.Mapped + at - s.Offset}] {
					t.Fatalf("sector %d of the device, of %v, is not in the trace", at, r)
				}
			}
		}
	}
	return trace
}

// goldenLayers opens the layers of an image that overlaybd's tools made, bottom
// first, without a trace layer. The test is skipped where there are none.
func goldenLayers(t *testing.T, name string) []blob.ReaderAt {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "golden", "images")
	b, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Skipf("no golden data: %v", err)
	}
	var expected map[string]struct {
		PerLayer []struct{ File string } `json:"per_layer"`
	}
	if err := json.Unmarshal(b, &expected); err != nil {
		t.Fatal(err)
	}
	var layers []blob.ReaderAt
	for _, l := range expected[name].PerLayer {
		layers = append(layers, filestest.Open(t, filepath.Join(dir, name, "blobs", strings.Replace(l.File, ":", "/", 1))))
	}
	return layers
}

// TestGolden finds each file of an image that a kernel made and overlaybd's tools
// packed, in three layers, and compares it with what the kernel reads.
func TestGolden(t *testing.T) {
	for _, name := range []string{"busybox-obd", "busybox-obd-zstd"} {
		t.Run(name, func(t *testing.T) {
			layers := goldenLayers(t, name)
			img, err := backstore.Open(t.Context(), layers)
			if err != nil {
				t.Fatal(err)
			}
			compared := 0
			for _, f := range rootfs(t) {
				if f.sum == "" {
					continue
				}
				ranges := find(t, img, f.path)
				var size int64
				for _, r := range ranges {
					size += r.Size
				}
				if size < f.size {
					continue // sparse
				}
				got := sha256.Sum256(read(t, img, ranges)[:f.size])
				if hex.EncodeToString(got[:]) != f.sum {
					t.Errorf("%q has other content in %v", f.path, ranges)
				}
				compared++
			}
			if compared < 100 {
				t.Errorf("only %d files were compared", compared)
			}
			checkTrace(t, layers, []string{"/bin/sh", "/etc/", "/nonexistent"}, []string{"/nonexistent"})
		})
	}
}

// golden is a line of rootfs.tsv about what is not a directory.
type goldenFile struct {
	path string
	size int64
	sum  string // SHA-256 of a regular file
}

func rootfs(t *testing.T) (out []goldenFile) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "golden", "images", "rootfs.tsv"))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.Comment, r.LazyQuotes = '\t', '#', true
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	unescape := strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`)
	for _, l := range lines {
		g := goldenFile{path: unescape.Replace(l[0])}
		if strings.HasPrefix(l[1], "10") && len(l[5]) == 64 {
			g.sum = l[5]
			if _, err := fmt.Sscan(l[4], &g.size); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, g)
	}
	return out
}

// TestPriorityList turns the list that upstream's tests prefetch into a trace of
// an image that has two of its four files.
func TestPriorityList(t *testing.T) {
	list, err := os.ReadFile("../../tracelayer/testdata/vectors/priority.list")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := tracelayer.ParseList(list)
	if err != nil {
		t.Fatal(err)
	}
	checkTrace(t, goldenLayers(t, "busybox-obd"), paths, []string{"/usr/share/doc/dir2/", "/nonexistent"})
}
