package disk

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// osFile adds to os.File what it lacks. os.File already lets Close wait for
// the calls under way, so a descriptor is never reused under one.
type osFile struct{ *os.File }

// Datasync implements File.
func (f osFile) Datasync() error { return f.control(unix.Fdatasync) }

// Punch implements File.
func (f osFile) Punch(off, n int64) error {
	return f.control(func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// Reopen implements Reopener.
func (f osFile) Reopen() (*os.File, error) {
	var copied *os.File
	err := f.control(func(fd int) error {
		g, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
		copied = g
		return err
	})
	return copied, err
}

// Stat implements File.
func (f osFile) Stat() (Info, error) {
	st, err := f.File.Stat()
	if err != nil {
		return Info{}, err
	}
	return info(st)
}

// control runs call with the descriptor, again when a signal interrupts it.
func (f osFile) control(call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		for result = unix.EINTR; result == unix.EINTR; { //nolint:errorlint // a bare errno
			result = call(int(fd))
		}
	})
	if err != nil {
		return err
	}
	return result
}

func info(st os.FileInfo) (Info, error) {
	if st.IsDir() {
		return Info{}, fmt.Errorf("%s: %w", st.Name(), ErrFolder)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		return Info{}, fmt.Errorf("%s is not a regular file", st.Name())
	}
	return Info{
		Inode:     sys.Ino,
		Size:      st.Size(),
		Allocated: sys.Blocks * 512,
		ModTime:   st.ModTime(),
	}, nil
}
