package sectors

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Opened is a Disk that is an open file or block device with direct I/O. It must
// be closed.
type Opened struct {
	f     *os.File
	block bool
}

// Open opens a block device, or a file in a file system.
func Open(name string) (*Opened, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a disk: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Opened{f, st.Mode()&os.ModeDevice != 0}, nil
}

// Close closes the file.
func (o *Opened) Close() error { return o.f.Close() }

// ReadAt fills p.
func (o *Opened) ReadAt(p []byte, off int64) error {
	_, err := o.f.ReadAt(p, off)
	return err
}

// WriteAt writes p.
func (o *Opened) WriteAt(p []byte, off int64) error {
	_, err := o.f.WriteAt(p, off)
	return err
}

// Flush is fsync.
func (o *Opened) Flush() error { return o.f.Sync() }

// Discard is BLKDISCARD, of a file a punched hole.
func (o *Opened) Discard(off, n int64) error {
	if o.block {
		return o.ioctl("discarding", unix.BLKDISCARD, off, n)
	}
	return o.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
}

// Zero is BLKZEROOUT, of a file a zeroed range.
func (o *Opened) Zero(off, n int64) error {
	if o.block {
		return o.ioctl("zeroing", unix.BLKZEROOUT, off, n)
	}
	return o.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (o *Opened) ioctl(doing string, request uint, off, n int64) error {
	extent := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, o.f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&extent)))
	if errno != 0 {
		return fmt.Errorf("%s %d bytes at %d of %s: %w", doing, n, off, o.f.Name(), errno)
	}
	return nil
}

func (o *Opened) fallocate(mode uint32, off, n int64) error {
	if err := unix.Fallocate(int(o.f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
		return fmt.Errorf("allocating (mode %#x) %d bytes at %d of %s: %w", mode, n, off, o.f.Name(), err)
	}
	return nil
}

// aligned returns a buffer for direct I/O.
func aligned(n int) []byte {
	const page = 4096
	p := make([]byte, n+page)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(p))) % page
	return p[skip:][:n:n]
}
