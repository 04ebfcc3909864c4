// Package disk is the file layer of the cache: the few file operations it
// needs, so that tests can put a failing or crashing file system in its place
// (see disktest).
package disk

import (
	"errors"
	"io"
	"os"
	"time"
)

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrFolder says that a name is that of a folder.
var ErrFolder = errors.New("is a folder")

// FS is a file system. All methods may be called in parallel. A file that is
// not there is reported with an error that wraps fs.ErrNotExist.
type FS interface {
	// MkdirAll makes the folder dir and its parents.
	MkdirAll(dir string) error
	// ReadDir returns the names in dir.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error

	// Sync makes everything written so far durable, names too. It fails if
	// anything could not be written since the call before.
	Sync() error
	// Open opens the file name for reading and writing, or for reading only
	// where the file system is read-only. create makes it when missing.
	Open(name string, create bool) (File, error)
	// ReadFile returns the content of a file of at most limit bytes.
	ReadFile(name string, limit int64) ([]byte, error)
	// WriteFile replaces the file name with data, durable when it returns.
	// It is not atomic.
	WriteFile(name string, data []byte) error
	// WriteDraft replaces the file name with data for whoever reads it while
	// the machine runs on, see Boot. It is neither durable nor atomic.
	WriteDraft(name string, data []byte) error
	// Boot names the time since the machine was started: what was written
	// within it can be read whatever became of the process.
	Boot() string
	// Rename replaces to with from, atomically.
	Rename(from, to string) error
	// Remove removes the file name.
	Remove(name string) error
	// Stat describes the file name, not what a link points to. It fails for
	// anything but regular files, with ErrFolder for a folder.
	Stat(name string) (Info, error)
	// SetModTime changes the modification time of the file name.
	SetModTime(name string, t time.Time) error

	// Lock takes the lock file name until it is closed, or fails with
	// ErrLocked.
	Lock(name string) (io.Closer, error)
	// Free returns the bytes an unprivileged user can still write.
	Free() (int64, error)
	// Close releases the file system. Open files stay usable.
	Close() error
}

// Young reports whether something that was changed at t was so within grace before
// now. What is of a far future is not: the clock was wrong, then or now.
func Young(t, now time.Time, grace time.Duration) bool {
	age := now.Sub(t)
	return age < grace && age > -24*time.Hour
}

// File is an open file. All methods may be called in parallel; one that is
// overtaken by Close fails with an error that wraps fs.ErrClosed.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Datasync makes the data written so far durable.
	Datasync() error
	// Punch frees n bytes at off, which then read as zeros.
	Punch(off, n int64) error
	// Stat describes the file.
	Stat() (Info, error)
}

// Reopener is a File that can be opened once more, for reading, with an offset of
// its own, also after its name is gone.
type Reopener interface {
	Reopen() (*os.File, error)
}

// Info describes a file.
type Info struct {
	Inode     uint64    // its identity among the files that exist
	Size      int64     // bytes
	Allocated int64     // bytes of disk space in use
	ModTime   time.Time // of the last change
}
