package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Data that is written is on its way to the disk before a flush asks for it, as it
// is under a loop device with direct I/O, so that the flush of much data does not
// begin with an idle disk: a write of earlyBytes at once, and pieces of the end of an
// append-only layer when they are full.
const (
	earlyBytes   = 64 << 10
	earlySectors = 512 // 256 KiB
)

// hostFile is what a writable layer needs of a file. There is one implementation;
// tests put another around it that fails.
type hostFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// size returns the length in bytes.
	size() (int64, error)
	// allocated returns how many bytes the file takes on the disk.
	allocated() (int64, error)
	// lock fails if another has the file locked, and holds it until Close.
	lock() error
	// truncate sets the length to n bytes.
	truncate(n int64) error
	// sync makes the contents and the length durable.
	sync() error
	// start has the kernel begin to write n bytes from off on to the disk, and
	// does not wait for it. What comes of it, a sync tells.
	start(off, n int64)
	// punch frees n bytes from off on, which then read as zeros.
	punch(off, n int64) error
	// nextData is Sparse.NextData, up to end.
	nextData(off, end int64) (start, stop int64, err error)
	// forget writes the file out and drops what the kernel has of it in memory, as
	// far as nobody uses it, so that nextData tells what is on the disk.
	forget() error
	// block returns the unit in bytes in which the file has data or a hole.
	block() (int64, error)
}

// osFile is a hostFile in a regular file.
type osFile struct{ *os.File }

// openHostFile opens the regular file path for reading and writing.
func openHostFile(path string) (hostFile, error) {
	// Not O_NONBLOCK for what is no regular file: Stat tells before it is read.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) allocated() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Blocks * SectorSize, nil
}

func (f osFile) truncate(n int64) error { return f.Truncate(n) }

func (f osFile) sync() error {
	return f.retry("fdatasync", func() error { return unix.Fdatasync(int(f.Fd())) })
}

func (f osFile) start(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func (f osFile) punch(off, n int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return f.retry("fallocate", func() error { return unix.Fallocate(int(f.Fd()), mode, off, n) })
}

func (f osFile) nextData(off, end int64) (start, stop int64, err error) {
	s := SparseFile{f: f.File, size: end}
	return s.NextData(off)
}

func (f osFile) forget() error {
	if err := f.sync(); err != nil {
		return err
	}
	return f.retry("fadvise", func() error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
}

func (f osFile) block() (int64, error) {
	var st unix.Statfs_t
	err := f.retry("statfs", func() error { return unix.Fstatfs(int(f.Fd()), &st) })
	if err != nil {
		return 0, err
	}
	return max(st.Bsize, HeaderSize), nil
}

// retry calls do until no signal interrupts it, and names file and operation
// in its error.
func (f osFile) retry(op string, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: op, Path: f.Name(), Err: err}
		}
	}
}

// lock keeps other processes, and other Uppers of this one, out of a file.
func (f osFile) lock() error {
	err := f.retry("flock", func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", f.Name(), ErrInUse)
	}
	return err
}

// Close unlocks and closes the file. A child that another goroutine has just
// forked has it open, too, and would keep the lock until it executes its program.
func (f osFile) Close() error {
	_ = f.retry("flock", func() error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) })
	return f.File.Close()
}

// syncDir makes the names in the directory of path durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// reader is a hostFile as a blob.ReaderAt of a fixed size, all of it local.
type reader struct {
	hostFile
	name string
	n    int64
}

func (r *reader) Size() int64               { return r.n }
func (r *reader) String() string            { return r.name }
func (r *reader) Present(off, n int64) bool { return true }

func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off >= r.n {
		return 0, io.EOF
	}
	if int64(len(p)) <= r.n-off {
		return r.hostFile.ReadAt(p, off)
	}
	n, err := r.hostFile.ReadAt(p[:r.n-off], off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

func (r *reader) NextData(off int64) (start, end int64, err error) {
	return r.nextData(off, r.n)
}
