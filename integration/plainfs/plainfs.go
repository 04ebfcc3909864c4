// Package plainfs makes a file system on a plain loop device with direct I/O over
// a sparse file: what the product's devices are compared with, and a place whose
// power can be lost.
package plainfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/loopdev"
)

// FileSystem is mounted on Dir, unless it was unmounted. It must be closed.
type FileSystem struct {
	Dir    string
	Device *loopdev.Device
	// File is the sparse file below.
	File string

	fsType, options string
	mounted         bool
}

// Options say what is made.
type Options struct {
	Type         string   // ext4 or xfs
	Size         int64    // bytes
	Mkfs         []string // arguments of mkfs
	MountOptions string
}

// New makes a file system below a new folder dir, and mounts it.
func New(dir string, o Options) (*FileSystem, error) {
	fs := &FileSystem{Dir: filepath.Join(dir, "mnt"), File: filepath.Join(dir, "disk"), fsType: o.Type, options: o.MountOptions}
	err := errors.Join(os.MkdirAll(fs.Dir, 0o755), os.WriteFile(fs.File, nil, 0o600))
	if err == nil {
		err = os.Truncate(fs.File, o.Size)
	}
	if err == nil {
		fs.Device, err = loopdev.AttachWritable(fs.File)
	}
	if err != nil {
		return nil, fmt.Errorf("making a plain file system: %w", err)
	}
	argv := append(o.Mkfs, fs.Device.Path)
	if out, err := exec.Command("mkfs."+o.Type, argv...).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("making a plain file system: mkfs.%s: %w: %s", o.Type, err, bytes.TrimSpace(out)), fs.Close())
	}
	if err := fs.Mount(); err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	return fs, nil
}

// Mount mounts it again.
func (fs *FileSystem) Mount() error {
	if err := unix.Mount(fs.Device.Path, fs.Dir, fs.fsType, 0, fs.options); err != nil {
		return fmt.Errorf("mounting %s: %w", fs.Device.Path, err)
	}
	fs.mounted = true
	return nil
}

// Unmount unmounts it.
func (fs *FileSystem) Unmount() error {
	if err := unix.Unmount(fs.Dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", fs.Dir, err)
	}
	fs.mounted = false
	return nil
}

// The kernel's request to shut a file system down at once: nothing more is
// written, not even the journal that is in memory (_IOR('X', 125, __u32)).
const (
	goingDown    = 0x8004_587d
	withoutFlush = 2
)

// LosePower makes the file system forget all that is not on its disk yet. What is
// done on it from then on fails, until it is mounted anew.
func (fs *FileSystem) LosePower() error {
	d, err := os.Open(fs.Dir)
	if err != nil {
		return fmt.Errorf("shutting down %s: %w", fs.Dir, err)
	}
	defer d.Close()
	flags := uint32(withoutFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), goingDown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("shutting down %s: %w", fs.Dir, errno)
	}
	return nil
}

// Check runs e2fsck on the device, which must not be mounted.
func (fs *FileSystem) Check() error {
	if out, err := exec.Command("e2fsck", "-fn", fs.Device.Path).CombinedOutput(); err != nil {
		return fmt.Errorf("checking %s: %w: %s", fs.Device.Path, err, bytes.TrimSpace(out))
	}
	return nil
}

// Close unmounts it and detaches the device.
func (fs *FileSystem) Close() error {
	var err error
	if fs.mounted {
		err = fs.Unmount()
	}
	return errors.Join(err, fs.Device.Detach())
}
