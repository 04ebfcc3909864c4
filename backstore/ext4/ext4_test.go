package ext4_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/ext4"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/remote/blob"
)

// TestMadeByTools compares what is read of file systems of all kinds with the
// files that mkfs.ext4 made them of.
func TestMadeByTools(t *testing.T) {
	dir := filestest.Tree(t)
	for name, flags := range filestest.Ext4Variants {
		t.Run(name, func(t *testing.T) {
			compare(t, filestest.Open(t, filestest.Ext4(t, dir, flags...)), dir)
		})
	}
}

// TestWrittenByKernel does so for file systems that a kernel wrote to in ways
// that mkfs does not: fragments, extent trees, preallocated and punched files,
// hashed directories of several levels from which names were removed.
func TestWrittenByKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	empty := t.TempDir()
	for name, flags := range map[string][]string{
		"default":    nil,
		"1k":         {"-b", "1024"},
		"inline":     {"-O", "inline_data"},
		"block maps": {"-O", "^extents,^64bit", "-b", "1024"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filestest.Ext4(t, empty, flags...)
			copied, mnt := t.TempDir(), t.TempDir()
			mounted := func(do func()) {
				filestest.Run(t, "mount", "-o", "loop", file, mnt)
				defer filestest.Run(t, "umount", mnt)
				do()
			}
			mounted(func() { fill(t, mnt) })
			// What was just written may look like a hole to cp.
			mounted(func() { filestest.Run(t, "cp", "-a", mnt+"/.", copied) })
			compare(t, filestest.Open(t, file), copied)
		})
	}
}

// fill writes to a mounted file system.
func fill(t *testing.T, mnt string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(mnt+"/many", 0o755))
	name := func(n int) string { return fmt.Sprintf("%s/many/%s-%d-ä", mnt, strings.Repeat("n", n%180), n) }
	for n := range 8000 {
		must(os.WriteFile(name(n), fmt.Append(nil, n%70), 0o644))
	}
	for n := range 8000 {
		if n%3 == 0 {
			must(os.Remove(name(n)))
		}
	}
	// Files that grow in turn are in fragments; every second one is removed.
	var files []*os.File
	for n := range 2 {
		f, err := os.Create(fmt.Sprintf("%s/fragments%d", mnt, n))
		must(err)
		defer f.Close()
		files = append(files, f)
	}
	for block := range 700 {
		for n, f := range files {
			_, err := f.WriteAt(bytes.Repeat([]byte{byte(block), byte(n)}, 2048), int64(block)*8192)
			must(err)
			if block%8 == 0 {
				must(f.Sync())
			}
		}
	}
	f, err := os.Create(mnt + "/allocated")
	must(err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte("data"), 50000), 0)
	must(err)
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 40960, 40960)
	if !errors.Is(err, unix.EOPNOTSUPP) { // files with block maps
		must(err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 300000, 500000)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		must(err)
		must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 800000, 500000))
	}
	_, err = f.WriteAt([]byte("in the middle of what is allocated"), 600000)
	must(err)
}

// compare compares all that is in a file system with a folder.
func compare(t *testing.T, dev blob.ReaderAt, dir string) {
	t.Helper()
	m, err := ext4.Open(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	root, err := m.Inode(t.Context(), ext4.Root)
	if err != nil {
		t.Fatal(err)
	}
	compareDir(t, m, dev, root, dir)
}

func compareDir(t *testing.T, m *ext4.Image, dev blob.ReaderAt, d *ext4.Inode, dir string) {
	t.Helper()
	want, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	err = m.ReadDir(t.Context(), d, func(name string, inode uint64) error {
		if name != "lost+found" {
			got[name] = inode
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, e := range want {
		p := filepath.Join(dir, e.Name())
		if e.Name() == "lost+found" {
			continue
		}
		names++
		n, err := m.Lookup(t.Context(), d, e.Name())
		if err != nil || n != got[e.Name()] {
			t.Fatalf("%s: Lookup = %d, %v; ReadDir has %d", p, n, err, got[e.Name()])
		}
		if _, err := m.Lookup(t.Context(), d, e.Name()+"?"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s?: Lookup = %v, want fs.ErrNotExist", p, err)
		}
		i, err := m.Inode(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		compareFile(t, m, dev, i, p)
	}
	if len(got) != names {
		t.Errorf("%s: %d names, want %d", dir, len(got), names)
	}
}

func compareFile(t *testing.T, m *ext4.Image, dev blob.ReaderAt, i *ext4.Inode, p string) {
	t.Helper()
	switch i.Type() {
	case ext4.TypeDir:
		compareDir(t, m, dev, i, p)
	case ext4.TypeSymlink:
		want, err := os.Readlink(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.ReadLink(t.Context(), i); got != want || err != nil {
			t.Errorf("%s -> %q, %v; want %q", p, got, err, want)
		}
	case ext4.TypeRegular:
		want, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, m, dev, i); !bytes.Equal(got, want) {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			t.Errorf("%s: %d bytes that differ at %d, want %d", p, len(got), at, len(want))
		}
	default:
		t.Errorf("%s has mode %#o", p, i.Mode)
	}
}

// content reads a file by its extents, of which that of a file in its inode does
// not say where in it.
func content(t *testing.T, m *ext4.Image, dev blob.ReaderAt, i *ext4.Inode) []byte {
	t.Helper()
	got := make([]byte, i.Size)
	err := m.Extents(t.Context(), i, func(e ext4.Extent) error {
		if e.Size < m.BlockSize() {
			got = i.Inline()
			return nil
		}
		n := min(e.Size, i.Size-e.Logical)
		return blob.ReadFull(t.Context(), dev, got[e.Logical:e.Logical+n], e.Off)
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
