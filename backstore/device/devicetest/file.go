package devicetest

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// File is a device.Writable that is a plain file.
type File struct {
	f     *os.File
	size  int64
	delay time.Duration
}

// OpenFile opens the file path, of whole sectors, as a device of which each
// request takes delay at least.
func OpenFile(path string, delay time.Duration) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, st.Size(), delay}, nil
}

// Size implements device.Device.
func (d *File) Size() int64 { return d.size }

// ReadAt implements device.Device.
func (d *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.wait(ctx); err != nil {
		return 0, err
	}
	return d.f.ReadAt(p, off)
}

// WriteAt implements device.Writable.
func (d *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := d.wait(ctx); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("writing %d bytes at %d of %d", len(p), off, d.size)
	}
	return d.f.WriteAt(p, off)
}

// Discard implements device.Writable.
func (d *File) Discard(ctx context.Context, off, n int64) error {
	if err := d.wait(ctx); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Flush implements device.Writable.
func (d *File) Flush(ctx context.Context) error {
	if err := d.wait(ctx); err != nil {
		return err
	}
	return unix.Fdatasync(int(d.f.Fd()))
}

// Close closes the file.
func (d *File) Close() error { return d.f.Close() }

func (d *File) wait(ctx context.Context) error {
	if d.delay > 0 {
		select {
		case <-time.After(d.delay):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
