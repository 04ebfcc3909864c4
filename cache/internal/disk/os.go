package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OS is the FS of the operating system, rooted at a folder: names are
// relative to it.
type OS struct {
	root *os.Root
	dir  *os.File // of the root, open all the time: Sync tells it what failed since

	shards shards
}

// OpenOS returns the file system below the folder dir, which must exist.
func OpenOS(dir string) (*OS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &OS{root: root, dir: f, shards: shards{open: make(map[string]*os.Root)}}, nil
}

// MkdirAll implements FS.
func (o *OS) MkdirAll(dir string) error { return o.root.MkdirAll(dir, 0o700) }

// ReadDir implements FS. It opens nothing but folders: a pipe could block it.
func (o *OS) ReadDir(dir string) ([]string, error) {
	f, err := o.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// SyncDir implements FS.
func (o *OS) SyncDir(dir string) error {
	f, err := o.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Open implements FS.
func (o *OS) Open(name string, create bool) (File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	var f *os.File
	err := o.at(name, func(r *os.Root, name string) (err error) {
		if f, err = r.OpenFile(name, flag, 0o600); errors.Is(err, unix.EROFS) {
			f, err = r.Open(name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// ReadFile implements FS.
func (o *OS) ReadFile(name string, limit int64) ([]byte, error) {
	var f *os.File
	err := o.at(name, func(r *os.Root, name string) (err error) {
		f, err = r.Open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", name, limit)
	}
	data := make([]byte, st.Size())
	_, err = io.ReadFull(f, data)
	return data, err
}

// WriteFile implements FS.
func (o *OS) WriteFile(name string, data []byte) error {
	var f *os.File
	err := o.at(name, func(r *os.Root, name string) (err error) {
		f, err = r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// WriteDraft implements FS.
func (o *OS) WriteDraft(name string, data []byte) error {
	return o.at(name, func(r *os.Root, name string) error { return r.WriteFile(name, data, 0o600) })
}

// Boot implements FS. Where the kernel does not tell, it never is the same.
func (o *OS) Boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return rand.Text()
	}
	return strings.TrimSpace(string(id))
}

// Rename implements FS.
func (o *OS) Rename(from, to string) error {
	if path.Dir(from) != path.Dir(to) {
		return o.root.Rename(from, to)
	}
	return o.at(from, func(r *os.Root, name string) error {
		if name == from {
			return r.Rename(from, to)
		}
		return r.Rename(name, path.Base(to))
	})
}

// Remove implements FS.
func (o *OS) Remove(name string) error {
	return o.at(name, func(r *os.Root, name string) error { return r.Remove(name) })
}

// Stat implements FS.
func (o *OS) Stat(name string) (Info, error) {
	var st os.FileInfo
	err := o.at(name, func(r *os.Root, name string) (err error) {
		st, err = r.Lstat(name)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return info(st)
}

// SetModTime implements FS.
func (o *OS) SetModTime(name string, t time.Time) error {
	return o.at(name, func(r *os.Root, name string) error { return r.Chtimes(name, t, t) })
}

// Lock implements FS.
func (o *OS) Lock(name string) (io.Closer, error) {
	f, err := o.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = o.root.Open(name)
	}
	if err != nil {
		return nil, err
	}
	err = osFile{f}.control(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, err
	}
	return f, nil
}

// Free implements FS.
func (o *OS) Free() (int64, error) {
	f, err := o.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := (osFile{f}).control(func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Close implements FS.
func (o *OS) Close() error { return errors.Join(o.shards.close(), o.dir.Close(), o.root.Close()) }

// Sync implements FS. It syncs the whole file system, whoever wrote to it.
func (o *OS) Sync() error { return osFile{o.dir}.control(unix.Syncfs) }
