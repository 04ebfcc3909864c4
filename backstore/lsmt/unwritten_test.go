package lsmt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// TestUnwrittenExtent opens a sparse layer whose file has blocks that were allocated
// and never written, as the loss of power can leave them, and that were read since.
func TestUnwrittenExtent(t *testing.T) {
	dir := t.TempDir()
	files := lsmt.UpperFiles{Data: filepath.Join(dir, "data"), Index: filepath.Join(dir, "index")}
	const size = 1 << 20
	err := lsmt.CreateUpper(files, lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: size}, Sparse: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(files.Data, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, lsmt.HeaderSize, 64<<10); err != nil {
		t.Skip("no unwritten extents here: ", err)
	}
	if _, err := f.ReadAt(make([]byte, 64<<10), lsmt.HeaderSize); err != nil {
		t.Fatal(err)
	}
	lower := bytes.Repeat([]byte("below"), size)[:size]
	u, err := lsmt.OpenUpper(t.Context(), files, memory(lower))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	got := make([]byte, size)
	if _, err := u.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, lower) {
		t.Error("blocks that were never written hide what is below")
	}
}
