// Package filelist_test compares what a list of files is said to read of a device
// with what a kernel reads of it.
package filelist_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/files"
	"github.com/reprise-containers/reprise/backstore/files/filestest"
	"github.com/reprise-containers/reprise/integration/blocktrace"
	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/remote/blob"
)

const page = 4096

// TestReadsWhatKernelsRead mounts file systems on a loop device without
// readahead, reads files, and compares the pages with those that the list of the
// files means: they are the same to the page.
func TestReadsWhatKernelsRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := filestest.Tree(t)
	for name, disk := range map[string]string{
		"ext4":             filestest.Ext4(t, dir),
		"ext4 of 1k":       filestest.Ext4(t, dir, filestest.Ext4Variants["1k"]...),
		"ext4 as obd":      filestest.Ext4(t, dir, filestest.Ext4Variants["as overlaybd"]...),
		"ext4 with meta":   filestest.Ext4(t, dir, filestest.Ext4Variants["meta_bg 4k"]...),
		"ext4 with inline": filestest.Ext4(t, dir, filestest.Ext4Variants["inline"]...),
		"erofs":            filestest.Erofs(t, dir),
	} {
		for _, paths := range [][]string{
			{"/usr/bin/app", "/many/a name that is neither short nor long 0777", "/long", "/sparse"},
			{"/many/", "/few/"},
		} {
			t.Run(name+" "+filepath.Base(paths[0]), func(t *testing.T) {
				fsType, _, _ := strings.Cut(name, " ")
				want := kernel(t, disk, fsType, paths)
				got := listed(t, disk, paths)
				for p := range want {
					if !got[p] {
						t.Errorf("page %d of %d is read by the kernel only", p, len(want))
					}
				}
				for p := range got {
					if !want[p] {
						t.Errorf("page %d of %d is not read by the kernel", p, len(got))
					}
				}
			})
		}
	}
}

// listed returns the pages that a list of files means.
func listed(t *testing.T, disk string, paths []string) map[int64]bool {
	t.Helper()
	dev := &noted{filestest.Open(t, disk), map[int64]bool{}}
	ranges, missing, err := files.Ranges(t.Context(), dev, paths)
	if err != nil || len(missing) > 0 {
		t.Fatalf("Ranges misses %q, %v", missing, err)
	}
	for _, r := range ranges {
		dev.note(r.Off, r.Size)
	}
	return dev.pages
}

// noted notes the pages that are read.
type noted struct {
	blob.ReaderAt
	pages map[int64]bool
}

func (d *noted) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	d.note(off, int64(len(p)))
	return d.ReaderAt.ReadAt(ctx, p, off)
}

func (d *noted) note(off, n int64) {
	for p := off / page; p*page < off+n; p++ {
		d.pages[p] = true
	}
}

// kernel returns the pages that are read of a disk when it is mounted and the
// paths are read, of directories the files in them.
func kernel(t *testing.T, disk, fsType string, paths []string) map[int64]bool {
	t.Helper()
	dev, err := loopdev.Attach(disk, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Detach(); err != nil {
			t.Error(err)
		}
	}()
	options := ""
	if fsType == "ext4" {
		options = "inode_readahead_blks=0,no_prefetch_block_bitmaps"
	}
	mnt := t.TempDir()
	extents, err := blocktrace.Record(t.TempDir(), dev.Number, func() (err error) {
		if err := unix.Mount(dev.Path, mnt, fsType, unix.MS_RDONLY, options); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Unmount(mnt, 0)) }()
		for _, p := range paths {
			err = errors.Join(err, filepath.WalkDir(mnt+strings.TrimSuffix(p, "/"), readFile))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := map[int64]bool{}
	for _, e := range extents {
		for p := e.Sector * 512 / page; p*page < (e.Sector+e.Sectors)*512; p++ {
			pages[p] = true
		}
	}
	return pages
}

// readFile reads the files that WalkDir comes across.
func readFile(p string, d os.DirEntry, err error) error {
	if err != nil || d.IsDir() {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
