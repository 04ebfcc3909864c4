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

// fuseMagic is the f_type of FUSE, from linux/magic.h.
const fuseMagic = 0x65735546

// options returns the mount options for fsType, best first: older kernels do
// not know all of them.
func options(fsType string) ([]string, error) {
	switch fsType {
	case "ext4":
		// noload: a journal that was not closed cannot be replayed on
		// a device that never changes. inode_readahead_blks: ext4 reads
		// inode tables ahead by itself, 32 blocks at a time, whatever
		// the loop device's readahead is; see also readahead.
		return []string{"noload,inode_readahead_blks=0"}, nil
	case "xfs":
		// norecovery as noload; nouuid, as two containers may run two
		// images made from one.
		return []string{"norecovery,nouuid"}, nil
	case "erofs":
		// directio, for a mount without a loop device: reads go to the
		// FUSE file as erofs makes them. Without it they go through
		// that file's page cache, 4 KiB at a time, as its readahead was
		// off when erofs opened it, and nothing can turn it on later.
		// A loop device has no such option.
		return []string{"directio", ""}, nil
	}
	return nil, fmt.Errorf("file system type %q is not one of ext4, xfs, erofs", fsType)
}

// mount mounts j.File on j.Target.
func (j Job) mount(ctx context.Context) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	source, err := j.present()
	if err != nil || source != "" {
		return Result{Source: source}, err
	}
	file, err := openDevice(j.File)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	if source, err = j.mountFile(ctx, file); err != nil {
		return Result{}, err
	}
	if err := wanted(); err != nil {
		// Nobody knows about this mount, and nobody is in it.
		return Result{}, errors.Join(err, unix.Unmount(j.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return Result{Source: source}, nil
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
