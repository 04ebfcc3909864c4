// Package loopdev attaches loop devices for measurements beside the product's
// own stack.
package loopdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Device is an attached loop device. It must be detached.
type Device struct {
	// Path is its name, such as /dev/loop7.
	Path string
	// Number is its device number as the kernel's trace events print it:
	// major << 20 | minor.
	Number uint64
}

// Attach puts a read-only loop device with direct I/O over a file.
// readaheadKB is its kernel readahead.
func Attach(file string, readaheadKB int) (*Device, error) {
	d, err := attach(file, os.O_RDONLY, unix.LO_FLAGS_READ_ONLY)
	if err == nil {
		if err = d.SetReadahead(readaheadKB); err != nil {
			d.Detach() //nolint:errcheck // the first error tells more
		}
	}
	return d, err
}

// AttachBuffered is Attach through the page cache of the file, as mount and
// losetup do without being asked.
func AttachBuffered(file string, readaheadKB int) (*Device, error) {
	d, err := Attach(file, readaheadKB)
	if err != nil {
		return nil, err
	}
	dev, err := os.Open(d.Path)
	if err == nil {
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_DIRECT_IO, 0)
		dev.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making %s buffered: %w", d.Path, err), d.Detach())
	}
	return d, nil
}

// AttachWritable puts a writable loop device over a file.
func AttachWritable(file string) (*Device, error) { return attach(file, os.O_RDWR, 0) }

func attach(file string, mode int, flags uint32) (*Device, error) {
	backing, err := os.OpenFile(file, mode|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("attaching a loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attaching a loop device: %w", err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("finding a free loop device: %w", err)
		}
		d, err := configure(fmt.Sprintf("/dev/loop%d", n), backing, flags)
		if !errors.Is(err, unix.EBUSY) {
			return d, err
		} // somebody else was faster
	}
}

func configure(path string, backing *os.File, flags uint32) (*Device, error) {
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a loop device: %w", err)
	}
	defer dev.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = flags | unix.LO_FLAGS_DIRECT_IO
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		return nil, fmt.Errorf("attaching %s to %s: %w", path, backing.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dev.Fd()), &st); err != nil {
		return nil, err
	}
	return &Device{path, uint64(unix.Major(st.Rdev))<<20 | uint64(unix.Minor(st.Rdev))}, nil
}

// SetReadahead changes the device's kernel readahead.
func (d *Device) SetReadahead(kb int) error {
	return os.WriteFile(filepath.Join("/sys/block", filepath.Base(d.Path), "queue/read_ahead_kb"), fmt.Append(nil, kb), 0)
}

// Detach releases the device once nothing uses it any more.
func (d *Device) Detach() error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detaching %s: %w", d.Path, err)
	}
	return nil
}
