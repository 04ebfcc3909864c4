// Package disktest has a file system in memory that fails, fills up and
// crashes on demand, for tests of what must survive that.
package disktest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// Op is a call about to be made.
type Op struct {
	Kind string // name of the method of disk.FS or disk.File
	Name string // of the file, as it was opened
}

// Looks reports whether the call changes nothing on the disk.
func (o Op) Looks() bool {
	switch o.Kind {
	case "ReadAt", "ReadFile", "ReadDir", "Stat", "Free":
		return true
	}
	return false
}

// FS is a disk.FS in memory. It tells apart what a crash of the process leaves
// (everything written) from what a power cut leaves (see Crash).
type FS struct {
	// Fault is asked before every call, in order, and makes it fail if it
	// returns an error. Set it before use; it may be nil.
	Fault func(Op) error

	mu       sync.Mutex
	names    map[string]*inode
	durable  map[string]*inode // the names as of the last SyncDir
	dirs     map[string]bool
	numbers  map[uint64]bool // inode numbers in use
	capacity int64
	foreign  int64 // bytes taken by others
	locked   bool
	boot     int
}

// New returns an empty file system of capacity bytes.
func New(capacity int64) *FS {
	return &FS{
		names:    make(map[string]*inode),
		durable:  make(map[string]*inode),
		dirs:     map[string]bool{".": true},
		numbers:  make(map[uint64]bool),
		capacity: capacity,
	}
}

// SetForeign sets how many bytes others take.
func (f *FS) SetForeign(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.foreign = n
}

// Used returns the bytes of all files.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

func (f *FS) used() (n int64) {
	for _, i := range f.names {
		n += i.allocated()
	}
	return n
}

// begin starts the call op: it asks Fault, then takes the lock.
func (f *FS) begin(kind, name string) error {
	if f.Fault != nil {
		if err := f.Fault(Op{kind, name}); err != nil {
			return &fs.PathError{Op: kind, Path: name, Err: err}
		}
	}
	f.mu.Lock()
	return nil
}

func missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// MkdirAll implements disk.FS.
func (f *FS) MkdirAll(dir string) error {
	if err := f.begin("MkdirAll", dir); err != nil {
		return err
	}
	defer f.mu.Unlock()
	for ; !f.dirs[dir]; dir = path.Dir(dir) {
		f.dirs[dir] = true
	}
	return nil
}

// ReadDir implements disk.FS.
func (f *FS) ReadDir(dir string) ([]string, error) {
	if err := f.begin("ReadDir", dir); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	if !f.dirs[dir] {
		return nil, missing("ReadDir", dir)
	}
	var list []string
	for name := range f.dirs {
		if name != "." && path.Dir(name) == dir {
			list = append(list, path.Base(name))
		}
	}
	for name := range f.names {
		if path.Dir(name) == dir {
			list = append(list, path.Base(name))
		}
	}
	slices.Sort(list)
	return list, nil
}

// SyncDir implements disk.FS.
func (f *FS) SyncDir(dir string) error {
	if err := f.begin("SyncDir", dir); err != nil {
		return err
	}
	defer f.mu.Unlock()
	maps.DeleteFunc(f.durable, func(name string, _ *inode) bool { return path.Dir(name) == dir })
	for name, i := range f.names {
		if path.Dir(name) == dir {
			f.durable[name] = i
		}
	}
	return nil
}

// Sync implements disk.FS.
func (f *FS) Sync() error {
	if err := f.begin("Sync", "."); err != nil {
		return err
	}
	f.mu.Unlock()
	f.Settle()
	return nil
}

// Open implements disk.FS.
func (f *FS) Open(name string, create bool) (disk.File, error) {
	if err := f.begin("Open", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		if !create || !f.dirs[path.Dir(name)] {
			return nil, missing("Open", name)
		}
		i = f.create(name)
	}
	i.open++
	return &file{fs: f, i: i, name: name}, nil
}

// create makes a file with the lowest inode number that is free, so that
// numbers are reused as soon as can be.
func (f *FS) create(name string) *inode {
	number := uint64(1)
	for f.numbers[number] {
		number++
	}
	f.numbers[number] = true
	i := &inode{number: number, changed: time.Now()}
	f.names[name] = i
	return i
}

// forget frees the number of i when no name and no descriptor is left.
func (f *FS) forget(i *inode) {
	if i.open > 0 {
		return
	}
	for _, other := range f.names {
		if other == i {
			return
		}
	}
	delete(f.numbers, i.number)
}

// ReadFile implements disk.FS.
func (f *FS) ReadFile(name string, limit int64) ([]byte, error) {
	if err := f.begin("ReadFile", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		return nil, missing("ReadFile", name)
	}
	if i.now.size > limit {
		return nil, fmt.Errorf("%s is too long", name)
	}
	data := make([]byte, i.now.size)
	i.now.read(data, 0)
	return data, nil
}

// WriteFile implements disk.FS.
func (f *FS) WriteFile(name string, data []byte) error {
	if err := f.begin("WriteFile", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		if !f.dirs[path.Dir(name)] {
			return missing("WriteFile", name)
		}
		i = f.create(name)
	}
	i.now = content{}
	if err := f.write(i, data, 0); err != nil {
		return err
	}
	i.synced = i.now.clone()
	return nil
}

// WriteDraft implements disk.FS.
func (f *FS) WriteDraft(name string, data []byte) error {
	if err := f.begin("WriteDraft", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		if !f.dirs[path.Dir(name)] {
			return missing("WriteDraft", name)
		}
		i = f.create(name)
	}
	i.now = content{}
	return f.write(i, data, 0)
}

// Boot implements disk.FS.
func (f *FS) Boot() string { return strconv.Itoa(f.boot) }

// write puts data into i as far as there is room.
func (f *FS) write(i *inode, data []byte, off int64) error {
	before := i.allocated()
	old := i.now.clone()
	i.now.write(data, off)
	i.changed = time.Now()
	if i.allocated() > before && f.used()+f.foreign > f.capacity {
		i.now = old
		return syscall.ENOSPC
	}
	return nil
}

// Rename implements disk.FS.
func (f *FS) Rename(from, to string) error {
	if err := f.begin("Rename", from); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i, old := f.names[from], f.names[to]
	if i == nil {
		return missing("Rename", from)
	}
	delete(f.names, from)
	f.names[to] = i
	if old != nil && old != i {
		f.forget(old)
	}
	return nil
}

// Remove implements disk.FS.
func (f *FS) Remove(name string) error {
	if err := f.begin("Remove", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		return missing("Remove", name)
	}
	delete(f.names, name)
	f.forget(i)
	return nil
}

// Stat implements disk.FS.
func (f *FS) Stat(name string) (disk.Info, error) {
	if err := f.begin("Stat", name); err != nil {
		return disk.Info{}, err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		if f.dirs[name] {
			return disk.Info{}, disk.ErrFolder
		}
		return disk.Info{}, missing("Stat", name)
	}
	return i.info(), nil
}

// SetModTime implements disk.FS.
func (f *FS) SetModTime(name string, t time.Time) error {
	if err := f.begin("SetModTime", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		return missing("SetModTime", name)
	}
	i.changed = t
	return nil
}

// Lock implements disk.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked {
		return nil, disk.ErrLocked
	}
	f.locked = true
	return unlock{f}, nil
}

type unlock struct{ f *FS }

func (u unlock) Close() error {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	if !u.f.locked {
		return errors.New("not locked")
	}
	u.f.locked = false
	return nil
}

// Free implements disk.FS.
func (f *FS) Free() (int64, error) {
	if err := f.begin("Free", "."); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	return max(0, f.capacity-f.foreign-f.used()), nil
}

// Close implements disk.FS.
func (f *FS) Close() error { return nil }
