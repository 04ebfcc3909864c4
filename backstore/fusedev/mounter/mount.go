package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// mount mounts j.File on j.Target.
func (j Job) mount(ctx context.Context) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	if err := j.thawLeft(); err != nil {
		return Result{}, err
	}
	source, err := j.present()
	if err != nil || source != "" {
		return Result{Source: source}, err
	}
	if j.Writable {
		// Before a loop device is looked for.
		unlock, err := j.lockDevice(ctx)
		if err != nil {
			return Result{}, err
		}
		defer unlock()
	}
	file, err := openDevice(j.File, j.Writable)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	res, err := j.mountFile(ctx, file)
	if err != nil {
		return Result{}, err
	}
	if err := wanted(); err != nil {
		// Nobody knows about this mount, and nobody is in it.
		return Result{}, errors.Join(err, unix.Unmount(j.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return res, nil
}

// present returns the source of the mount on j.Target if it is one of j.File,
// "" if there is none, and an error if something else is mounted there. A
// mount of a device that was removed is dead, and detached.
func (j Job) present() (source string, err error) {
	for {
		ms, err := kernel.MountsAt(j.Target)
		if err != nil || len(ms) == 0 {
			return "", err
		}
		m := ms[len(ms)-1]
		file := m.File()
		if file == j.File {
			if j.Writable && !m.Writable() {
				return "", fmt.Errorf("%s from %s is mounted there read-only", m.FSType, m.Source)
			}
			return m.Source, nil
		}
		if j.Replace == "" || !strings.HasPrefix(file, j.Replace) {
			return "", fmt.Errorf("%s from %s is mounted there", m.FSType, m.Source)
		}
		if err := unix.Unmount(j.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return "", fmt.Errorf("detaching a dead mount: %w", err)
		}
	}
}

// openDevice opens a device's file and makes sure that it is one: if the FUSE
// file system is not mounted, the directory below shows.
func openDevice(path string, writable bool) (*os.File, error) {
	mode := os.O_RDONLY
	if writable {
		mode = os.O_RDWR
	}
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the device: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &st); err != nil {
		file.Close()
		return nil, fmt.Errorf("examining %s: %w", path, err)
	}
	if uint32(st.Type) != fuseMagic {
		file.Close()
		return nil, fmt.Errorf("%s is not on FUSE: the daemon's file system was unmounted", path)
	}
	return file, nil
}

// fuseMagic is the f_type of FUSE, from linux/magic.h.
const fuseMagic = 0x65735546

// mountFile mounts file by the best way that this kernel knows.
func (j Job) mountFile(ctx context.Context, file *os.File) (Result, error) {
	if j.Writable {
		return j.mountWritable(ctx, file)
	}
	if j.FSType == "erofs" {
		err := j.mountErofs(ctx)
		// Before 6.12 erofs wants a block device, and says so.
		if !errors.Is(err, unix.ENOTBLK) {
			return Result{Source: j.File}, err
		}
	}
	loop, err := attachLoop(file, false)
	if err != nil {
		return Result{}, err
	}
	defer loop.Close()
	return Result{Source: loop.Name()}, j.mountSource(loop.Name())
}

// mountWritable mounts file so that it can be written. If another mount
// namespace still has a mount of it, its loop device is used: a second one would
// be a second, different cache of the same blocks.
func (j Job) mountWritable(ctx context.Context, file *os.File) (res Result, err error) {
	loop, err := j.ownLoop(ctx)
	if err == nil && loop == nil {
		loop, err = attachLoop(file, true)
	}
	if err != nil {
		return res, err
	}
	defer loop.Close()
	res.Source = loop.Name()
	if res.Check, err = j.repair(ctx, loop); err != nil {
		return res, err
	}
	if err := wanted(); err != nil {
		return res, err
	}
	if err := j.note(writableRecord, j.File); err != nil {
		return res, err
	}
	return res, j.mountSource(loop.Name())
}

// mountSource mounts source with the first options that the kernel accepts.
func (j Job) mountSource(source string) error {
	candidates, err := j.mountOptions()
	if err != nil {
		return err
	}
	for _, o := range candidates {
		err = unix.Mount(source, j.Target, j.FSType, o.flags, o.data)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return fmt.Errorf("mount(2) of %s: %w (the kernel log may say more)", source, err)
}
