package backstore_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

// sparseVector unpacks a file with holes from the vectors, and skips the test
// where the file system or tar can't make holes.
func sparseVector(t testing.TB, name string) *lsmt.SparseFile {
	t.Helper()
	dir := t.TempDir()
	archive, err := filepath.Abs(vectors + "/writable/sparse.tar")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", dir, "-xSf", archive, name).CombinedOutput(); err != nil {
		t.Skipf("no GNU tar: %v: %s", err, out)
	}
	f, err := lsmt.OpenFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	start, end, err := f.NextData(0)
	if err != nil || start != 0 || end == f.Size() {
		t.Skipf("file system has no holes: data from %d to %d of %d, %v", start, end, f.Size(), err)
	}
	return f
}

func vector(t testing.TB, name string) blob.ReaderAt {
	t.Helper()
	return memory(readFile(t, vectors, name))
}

// openWritable opens a writable layer of the vectors by the path of its files
// without suffix.
func openWritable(t testing.TB, name string) *lsmt.Layer {
	t.Helper()
	var data blob.ReaderAt
	if base, ok := strings.CutPrefix(name, "writable/"); ok && strings.Contains(base, "sparse") {
		data = sparseVector(t, base+".data")
	} else {
		data = vector(t, name+".data")
	}
	index := vector(t, name+".index")
	l, err := lsmt.OpenWritable(t.Context(), data, index)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestCommitEqualsUpstream commits writable and sealed layers and compares the
// result byte by byte with what overlaybd-commit made of the same files.
func TestCommitEqualsUpstream(t *testing.T) {
	const uuid = "00000000-1111-4222-8333-0000000000"
	for _, c := range []struct {
		from, want   string
		uuid, parent string
	}{
		{"small-chain3/L0", "small-chain3/L0.raw.lsmt", uuid + "20", ""},
		{"small-chain3/L1", "small-chain3/L1.raw.lsmt", uuid + "21", uuid + "20"},
		{"small-chain3/L2", "small-chain3/L2.raw.lsmt", uuid + "22", uuid + "21"},
		{"edge/empty", "edge/empty.raw.lsmt", "", ""},
		{"edge/seg256", "edge/seg256.raw.lsmt", "", ""},
		{"edge/odd-vsize", "edge/odd-vsize.raw.lsmt", "", ""},
		{"edge/trim-only", "edge/trim-only.raw.lsmt", "", ""},
		{"edge/sealed", "edge/sealed.committed.lz4-4k.tar", "", ""},
		{"writable/append", "writable/append.committed.lsmt", uuid[:33] + "180", ""},
		{"writable/append-gc", "writable/append-gc.committed.lsmt", "", ""},
		{"writable/sparse", "writable/sparse.committed.lsmt", "", ""},
	} {
		t.Run(c.from, func(t *testing.T) {
			id := lsmt.Identity{UUID: c.uuid, Parent: c.parent}
			checkCommit(t, openWritable(t, c.from), id, c.want)
		})
	}
	t.Run("sealed in place", func(t *testing.T) {
		l, err := backstore.OpenLayer(t.Context(), vector(t, "edge/sealed.sealed.lsmt"))
		if err != nil {
			t.Fatal(err)
		}
		checkCommit(t, l, lsmt.Identity{}, "edge/sealed.committed.lz4-4k.tar")
	})
}

func checkCommit(t *testing.T, l *lsmt.Layer, id lsmt.Identity, want string) {
	t.Helper()
	var got bytes.Buffer
	if err := l.Commit(t.Context(), &got, id); err != nil {
		t.Fatal(err)
	}
	stream, err := backstore.Stream(t.Context(), vector(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if want := readAll(t, stream); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("committed layer of %d bytes differs from upstream's of %d", got.Len(), len(want))
	}
}
