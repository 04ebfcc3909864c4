// Package newfile makes files that appear when they are complete and on disk.
package newfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write makes the file path of what write writes to an empty temporary file
// beside it. A file that exists is replaced only if force is set, and only if it
// is a regular file: with the name of a device, somebody means something else.
// With an error nothing changes.
func Write(path string, force bool, write func(*os.File) error) (err error) {
	if err := free(path, force); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := place(f.Name(), path, force); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// free reports why no file may be written at path.
func free(path string, force bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s exists and is not a regular file", path)
	case !force:
		return fmt.Errorf("%s exists: remove it or use --force", path)
	}
	return nil
}

// place gives the finished file its name. Without force, a file that appeared
// meanwhile is not replaced.
func place(temp, path string, force bool) error {
	if !force {
		err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if err != unix.EINVAL && err != unix.ENOSYS { // not by this file system or kernel
			return &os.LinkError{Op: "rename", Old: temp, New: path, Err: err}
		}
	}
	return os.Rename(temp, path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
