package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// TestFolderTakenAway has somebody remove a folder of a file system that keeps it
// open, and make it anew, or put a link out of the file system in its place.
func TestFolderTakenAway(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	o, err := disk.OpenOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	const shard, name = "blobs/sha256/ab", "blobs/sha256/ab/x.json"
	write := func() error { return errors.Join(o.MkdirAll(shard), o.WriteFile(name, []byte("x"))) }
	for range 2 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "x" {
			t.Fatalf("%q, %v", data, err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat of what is gone = %v", err)
		}
		if err := o.WriteDraft(name, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("writing where no folder is = %v", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, shard)); err != nil {
		t.Fatal(err)
	}
	if err := o.WriteFile(name, []byte("x")); err == nil {
		t.Error("a link was followed")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestRename(t *testing.T) {
	o, err := disk.OpenOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	names := []string{"a", "blobs/sha256/ab/x", "blobs/sha256/ab/y", "blobs/sha256/cd/z", "b"}
	if err := errors.Join(o.MkdirAll("blobs/sha256/ab"), o.MkdirAll("blobs/sha256/cd"), o.WriteFile(names[0], []byte("x"))); err != nil {
		t.Fatal(err)
	}
	for i := range names[1:] {
		if err := o.Rename(names[i], names[i+1]); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Stat(names[i]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", names[i], err)
		}
		if data, err := o.ReadFile(names[i+1], 10); err != nil || string(data) != "x" {
			t.Errorf("%s: %q, %v", names[i+1], data, err)
		}
	}
	if err := o.Sync(); err != nil {
		t.Error(err)
	}
}
