package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// fuseMagic is the f_type of FUSE, from linux/magic.h.
const fuseMagic = 0x65735546

// options returns the mount options for fsType, best first: older kernels do
// not know all of them.
func options(fsType string) ([]string, error) {
	switch fsType {
	case "ext4":
		// noload: a journal that was not closed cannot be replayed on
		// a device that never changes. The other two read bitmaps and
		// inode tables that nobody asked for.
		return []string{"noload,no_prefetch_block_bitmaps,inode_readahead_blks=0", "noload,inode_readahead_blks=0"}, nil
	case "xfs":
		// norecovery as noload; nouuid, as two containers may run two
		// images made from one.
		return []string{"norecovery,nouuid"}, nil
	case "erofs":
		return []string{""}, nil
	}
	return nil, fmt.Errorf("file system type %q is not one of ext4, xfs, erofs", fsType)
}

// mount mounts j.File on j.Target.
func (j Job) mount(ctx context.Context) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	there, err := kernel.MountsAt(j.Target)
	if err != nil {
		return Result{}, err
	}
	if len(there) > 0 {
		m := there[len(there)-1]
		if m.File() != j.File {
			return Result{}, fmt.Errorf("%s from %s is mounted there", m.FSType, m.Source)
		}
		return Result{Source: m.Source}, nil
	}
	file, err := openDevice(j.File)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	source, err := j.mountFile(ctx, file)
	if err != nil {
		return Result{}, err
	}
	if err := context.Cause(ctx); err != nil {
		// Nobody knows about this mount, and nobody is in it.
		return Result{}, errors.Join(err, unix.Unmount(j.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return Result{Source: source}, nil
}

// openDevice opens a device's file and makes sure that it is one: if the FUSE
// file system is not mounted, the directory below shows.
func openDevice(path string) (*os.File, error) {
	file, err := os.Open(path)
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

// mountFile mounts file by the best way that this kernel knows.
func (j Job) mountFile(ctx context.Context, file *os.File) (source string, err error) {
	if j.FSType == "erofs" {
		err := j.mountErofs(ctx)
		// Before 6.12 erofs wants a block device, and says so.
		if !errors.Is(err, unix.ENOTBLK) {
			return j.File, err
		}
	}
	loop, err := attachLoop(file)
	if err != nil {
		return "", err
	}
	defer loop.Close()
	return loop.Name(), j.mountSource(loop.Name())
}

// mountSource mounts source with the first options that the kernel accepts.
func (j Job) mountSource(source string) error {
	candidates, err := options(j.FSType)
	if err != nil {
		return err
	}
	for _, o := range candidates {
		err = unix.Mount(source, j.Target, j.FSType, unix.MS_RDONLY, o)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return fmt.Errorf("mount(2) of %s: %w (the kernel log may say more)", source, err)
}
