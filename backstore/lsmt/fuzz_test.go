package lsmt_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

func seed(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob("../testdata/vectors/" + pattern)
		if err != nil || len(paths) == 0 {
			f.Fatal("no vectors ", pattern, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
}

// FuzzOpen opens any bytes as a layer. What opens must be in order, readable
// everywhere, and the same after a commit.
func FuzzOpen(f *testing.F) {
	seed(f, "small-chain3/L2.raw.lsmt", "edge/[eots]*.raw.lsmt", "edge/sealed.sealed.lsmt", "corrupt/*.lsmt")
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := lsmt.Open(t.Context(), memory(b))
		if err != nil {
			return
		}
		checkOpened(t, l)
	})
}

// FuzzOpenWritable opens any bytes as an append-only layer.
func FuzzOpenWritable(f *testing.F) {
	for _, name := range []string{"append", "append-gc", "torn-data", "index-invalid-padded", "stock"} {
		data, err := os.ReadFile("../testdata/vectors/writable/" + name + ".data")
		if err != nil {
			f.Fatal(err)
		}
		index, err := os.ReadFile("../testdata/vectors/writable/" + name + ".index")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 16384)], index)
	}
	f.Fuzz(func(t *testing.T, data, index []byte) {
		l, err := lsmt.OpenWritable(t.Context(), memory(data), memory(index))
		if err != nil {
			return
		}
		checkOpened(t, l)
	})
}

func checkOpened(t *testing.T, l *lsmt.Layer) {
	t.Helper()
	end := int64(0)
	for s := range l.Segments() {
		if s.Offset < end || s.Length < 1 {
			t.Fatalf("segment %+v after sector %d", s, end)
		}
		end = s.Offset + s.Length
	}
	image, err := lsmt.Stack([]*lsmt.Layer{l})
	if err != nil {
		return
	}
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	var b bytes.Buffer
	committed := image
	if mapped := image.Layers()[0].Mapped; mapped < 1<<20 {
		if err := l.Commit(t.Context(), &b, lsmt.Identity{UUID: "", Parent: "00000000-0000-0000-0000-000000000000"}); err != nil {
			t.Fatal(err)
		}
		again, err := lsmt.Open(t.Context(), memory(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if committed, err = lsmt.Stack([]*lsmt.Layer{again}); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	for s := range image.Segments() {
		if i++; i > 20 {
			break
		}
		off := max(s.Offset*lsmt.SectorSize-1000, 0)
		n, err := image.ReadAt(t.Context(), p, off)
		if want := min(int64(len(p)), max(image.Size()-off, 0)); int64(n) != want {
			t.Fatalf("reading at %d: %d bytes, want %d, %v", off, n, want, err)
		}
		if m, _ := committed.ReadAt(t.Context(), q, off); m != n || !bytes.Equal(p[:n], q[:m]) {
			t.Fatalf("the committed layer differs at %d", off)
		}
	}
}

// FuzzOpenUpper opens any bytes as a writable layer to be written. One that
// opens can be written, and reads the same when it is opened again.
func FuzzOpenUpper(f *testing.F) {
	for _, name := range []string{"small-chain3/L2", "edge/sealed", "edge/trim-only", "edge/odd-vsize"} {
		data, err := os.ReadFile("../testdata/vectors/" + name + ".data")
		if err != nil {
			f.Fatal(err)
		}
		index, err := os.ReadFile("../testdata/vectors/" + name + ".index")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, index)
		sparse := bytes.Clone(data)
		sparse[28] |= 1 << 4
		f.Add(sparse, []byte{})
		f.Add(append(sparse, 1, 2, 3), []byte{}) // ends within a sector
	}
	f.Fuzz(func(t *testing.T, data, index []byte) {
		files := newFiles(t)
		if err := os.WriteFile(files.Data, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.Index, index, 0o600); err != nil {
			t.Fatal(err)
		}
		u, err := lsmt.OpenUpper(t.Context(), files, nil)
		if err != nil {
			return
		}
		defer u.Close()
		n := min(u.Size(), 1<<20)
		if n == 0 {
			return
		}
		want := make([]byte, n)
		if _, err := u.ReadAt(t.Context(), want, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		p := sectors(1, 1)
		if _, err := u.WriteAt(t.Context(), p, n/2/512*512); err != nil {
			t.Fatal(err)
		}
		copy(want[n/2/512*512:], p)
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		u, err = lsmt.OpenUpper(t.Context(), files, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		got := make([]byte, n)
		if _, err := u.ReadAt(t.Context(), got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
			t.Fatalf("reopened: %v, or sector %d differs", err, differs(got, want))
		}
	})
}
