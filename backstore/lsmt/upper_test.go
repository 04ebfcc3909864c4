package lsmt_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/lsmt"
	"github.com/reprise-containers/reprise/remote/blob"
)

var _ device.Writable = (*lsmt.Upper)(nil)

// newFiles returns names for a writable layer in a folder of the test.
func newFiles(t testing.TB) lsmt.UpperFiles {
	t.Helper()
	dir := t.TempDir()
	return lsmt.UpperFiles{Data: filepath.Join(dir, "writable_data"), Index: filepath.Join(dir, "writable_index")}
}

// newUpper creates and opens a layer of size bytes.
func newUpper(t testing.TB, sparse bool, size int64, lower blob.ReaderAt) (*lsmt.Upper, lsmt.UpperFiles) {
	t.Helper()
	files := newFiles(t)
	opts := lsmt.UpperOptions{Sparse: sparse}
	opts.VirtualSize = size
	if err := lsmt.CreateUpper(files, opts); err != nil {
		t.Fatal(err)
	}
	return reopen(t, files, lower), files
}

// reopen opens a layer, and closes it at the end of the test at the latest.
func reopen(t testing.TB, files lsmt.UpperFiles, lower blob.ReaderAt) *lsmt.Upper {
	t.Helper()
	u, err := lsmt.OpenUpper(t.Context(), files, lower)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// kinds runs a test for both kinds of layer.
func kinds(t *testing.T, run func(t *testing.T, sparse bool)) {
	t.Run("append-only", func(t *testing.T) { run(t, false) })
	t.Run("sparse", func(t *testing.T) { run(t, true) })
}

func readAll(t testing.TB, r blob.ReaderAt) []byte {
	t.Helper()
	p := make([]byte, r.Size())
	if n, err := r.ReadAt(t.Context(), p, 0); n != len(p) {
		t.Fatalf("reading all: %d, %v", n, err)
	}
	return p
}

func write(t testing.TB, u *lsmt.Upper, p []byte, sector int64) {
	t.Helper()
	if n, err := u.WriteAt(t.Context(), p, sector*lsmt.SectorSize); n != len(p) || err != nil {
		t.Fatalf("writing %d bytes to sector %d: %d, %v", len(p), sector, n, err)
	}
}

func discard(t testing.TB, u *lsmt.Upper, sector, n int64) {
	t.Helper()
	if err := u.Discard(t.Context(), sector*lsmt.SectorSize, n*lsmt.SectorSize); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB, u *lsmt.Upper) {
	t.Helper()
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUpperConforms runs the suite of devices on writable layers, in which a
// part of what is read lies below.
func TestUpperConforms(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		devicetest.Run(t, func(t *testing.T, contents []byte) device.Device {
			below := bytes.Clone(contents)
			u, _ := newUpper(t, sparse, int64(len(contents)), memory(below))
			for s := int64(0); s*lsmt.SectorSize < int64(len(contents)); s += 5 {
				p := contents[s*lsmt.SectorSize:][:lsmt.SectorSize]
				clear(below[s*lsmt.SectorSize:][:lsmt.SectorSize])
				write(t, u, p, s)
			}
			return u
		})
	})
}

// l1 does what vector L1 of the format's description does.
func l1(t *testing.T, u *lsmt.Upper) {
	t.Helper()
	for i, w := range [][2]int64{{0, 16}, {8, 4}, {100, 1}, {-4, 2}, {1000, 8192}, {9192, 8192}, {-40000, 20000}} {
		if w[0] < 0 {
			discard(t, u, -w[0], w[1])
			continue
		}
		write(t, u, sectors(i, int(w[1])), w[0])
	}
}

// TestWorkedVector: log, sealed and committed layer of vector L1, record by
// record.
func TestWorkedVector(t *testing.T) {
	u, files := newUpper(t, false, 1<<30, nil)
	l1(t, u)
	want := readSome(t, u)
	closed(t, u)
	index, err := os.ReadFile(files.Index)
	if err != nil {
		t.Fatal(err)
	}
	log := "0 16 8\n8 4 24\n100 1 28\n4 2 29 zeroed\n1000 8192 29\n9192 8192 8221\n40000 16383 16413 zeroed\n56383 3617 16413 zeroed\n"
	if got := format(slices.Values(lsmt.Records(index[4096:])), 1); got != log || len(index) != 4224 {
		t.Errorf("log of %d bytes:\n%s", len(index), got)
	}
	if st, err := os.Stat(files.Data); err != nil || st.Size() != 16413*512 {
		t.Errorf("data file: %d bytes, %v", st.Size(), err)
	}
	if err := lsmt.SealUpper(t.Context(), files, 0); err != nil {
		t.Fatal(err)
	}
	f, err := lsmt.OpenFile(files.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sealed, err := lsmt.Open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	records := "0 4 8\n4 2 29 zeroed\n6 2 14\n8 4 24\n12 4 20\n100 1 28\n1000 8192 29\n9192 8192 8221\n40000 16383 16413 zeroed\n56383 3617 16413 zeroed\n"
	if got := format(sealed.Segments(), 1); got != records || f.Size() != 16413*512+512+4096 {
		t.Errorf("sealed, %d bytes:\n%s", f.Size(), got)
	}
	var b bytes.Buffer
	if err := sealed.Commit(t.Context(), &b, lsmt.Identity{}); err != nil {
		t.Fatal(err)
	}
	committed, err := lsmt.Open(t.Context(), memory(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	records = "0 4 8\n4 2 12 zeroed\n6 10 12\n100 1 22\n1000 16320 23\n17320 64 16343\n40000 16383 16407 zeroed\n56383 3617 16407 zeroed\n"
	if got := format(committed.Segments(), 1); got != records || b.Len() != 8_408_576 {
		t.Errorf("committed, %d bytes:\n%s", b.Len(), got)
	}
	image, err := lsmt.Stack([]*lsmt.Layer{committed})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readSome(t, image), want) {
		t.Error("committed layer reads differently")
	}
}

// readSome reads the first 60000 sectors.
func readSome(t *testing.T, r blob.ReaderAt) []byte {
	t.Helper()
	p := make([]byte, 60000*lsmt.SectorSize)
	if n, err := r.ReadAt(t.Context(), p, 0); n != len(p) {
		t.Fatal(n, err)
	}
	return p
}

// TestCreate: files are not overwritten, and nothing is left when that fails.
func TestCreate(t *testing.T) {
	files := newFiles(t)
	opts := lsmt.UpperOptions{Identity: lsmt.Identity{VirtualSize: 1 << 20}}
	if err := os.WriteFile(files.Index, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lsmt.CreateUpper(files, opts); !errors.Is(err, os.ErrExist) {
		t.Errorf("over an index: %v", err)
	}
	if _, err := os.Stat(files.Data); err == nil {
		t.Error("data file was left")
	}
	os.Remove(files.Index)
	for _, bad := range []lsmt.UpperOptions{
		{Sparse: true},
		{Identity: lsmt.Identity{VirtualSize: 1000}},
		{Identity: lsmt.Identity{VirtualSize: -512}},
		{Identity: lsmt.Identity{VirtualSize: 512, UUID: "x"}},
		{Identity: lsmt.Identity{VirtualSize: 512, Tag: strings.Repeat("x", 257)}},
	} {
		if err := lsmt.CreateUpper(files, bad); err == nil {
			t.Errorf("created %+v", bad)
		}
	}
	if err := lsmt.CreateUpper(files, opts); err != nil {
		t.Fatal(err)
	}
	if err := lsmt.CreateUpper(files, opts); !errors.Is(err, os.ErrExist) {
		t.Errorf("again: %v", err)
	}
	u := reopen(t, files, nil)
	if _, err := lsmt.OpenUpper(t.Context(), files, nil); !errors.Is(err, lsmt.ErrInUse) || !strings.Contains(err.Error(), files.Data) {
		t.Errorf("opened twice: %v", err)
	}
	closed(t, u)
	closed(t, u)
	for name, err := range map[string]error{
		"write": second(u.WriteAt(t.Context(), make([]byte, 512), 0)), "discard": u.Discard(t.Context(), 0, 512),
		"flush": u.Flush(t.Context()), "read": second(u.ReadAt(t.Context(), make([]byte, 512), 0)),
		"seal": u.Seal(t.Context()), "grow": u.Grow(t.Context(), 2<<20),
	} {
		if !errors.Is(err, lsmt.ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

func second(_ int, err error) error { return err }

// TestUnknownSize: a layer made without a size takes that of what it is put on.
func TestUnknownSize(t *testing.T) {
	files := newFiles(t)
	if err := lsmt.CreateUpper(files, lsmt.UpperOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := lsmt.OpenUpper(t.Context(), files, nil); err == nil {
		t.Error("opened without any size")
	}
	u := reopen(t, files, memory(make([]byte, 1<<20)))
	if u.Size() != 1<<20 {
		t.Errorf("size %d", u.Size())
	}
	closed(t, u)
	u = reopen(t, files, nil)
	if u.Size() != 1<<20 {
		t.Errorf("reopened alone: size %d", u.Size())
	}
}

// TestOutOfRange: requests must be whole sectors of the disk.
func TestOutOfRange(t *testing.T) {
	kinds(t, func(t *testing.T, sparse bool) {
		u, _ := newUpper(t, sparse, 1<<20, nil)
		for _, c := range [][2]int64{{-512, 512}, {1, 512}, {0, 511}, {1 << 20, 512}, {1<<20 - 512, 1024}} {
			if _, err := u.WriteAt(t.Context(), make([]byte, c[1]), c[0]); err == nil {
				t.Errorf("wrote %d bytes at %d", c[1], c[0])
			}
			if err := u.Discard(t.Context(), c[0], c[1]); err == nil {
				t.Errorf("discarded %d bytes at %d", c[1], c[0])
			}
		}
		if err := u.Discard(t.Context(), 512, 1<<62); err == nil {
			t.Error("discarded more than all")
		}
		if n, err := u.ReadAt(t.Context(), make([]byte, 1024), 1<<20-512); n != 512 || err != io.EOF {
			t.Errorf("read across the end: %d, %v", n, err)
		}
		if n, err := u.WriteAt(t.Context(), nil, 1<<20); n != 0 || err != nil {
			t.Errorf("wrote nothing: %d, %v", n, err)
		}
		if fmt.Sprint(u) == "" {
			t.Error("layer without a name")
		}
	})
}
