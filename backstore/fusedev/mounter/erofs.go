package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// erofsAttempts bounds how often a mount is repeated because somebody else
// mounted an erofs at the same time.
const erofsAttempts = 10

// mountErofs mounts the erofs in j.File without a loop device and turns its
// readahead off.
//
// The readahead belongs to a bdi called erofs-N, and nothing in mountinfo or
// sysfs says which N is whose. So the one that appeared during the mount is
// taken, and if there were two, the mount is tried again. The answer is
// recorded under the file system's device number, for later jobs.
func (j Job) mountErofs(ctx context.Context) error {
	if err := j.lock(ctx, "erofs"); err != nil {
		return err
	}
	for range erofsAttempts {
		before, err := kernel.FileErofs()
		if err != nil {
			return fmt.Errorf("listing erofs file systems: %w", err)
		}
		if err := j.mountSource(j.File); err != nil {
			return err
		}
		name, err := newErofs(before)
		if err == nil && name == "" {
			err = errors.New("another erofs was mounted at the same moment, every time")
			if unix.Unmount(j.Target, unix.UMOUNT_NOFOLLOW) == nil {
				continue
			}
		}
		if err == nil {
			err = j.recordErofs(name)
		}
		if err != nil {
			_ = unix.Unmount(j.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			return fmt.Errorf("finding the kernel's name of the erofs on %s: %w", j.Target, err)
		}
		return nil
	}
	return fmt.Errorf("mounting %s: other erofs mounts got in between %d times", j.Target, erofsAttempts)
}

// newErofs returns the erofs that is there now and not in before, or "" if it
// is not the only one.
func newErofs(before map[string]bool) (string, error) {
	after, err := kernel.FileErofs()
	if err != nil {
		return "", err
	}
	found := ""
	for name := range after {
		if before[name] {
			continue
		}
		if found != "" {
			return "", nil
		}
		found = name
	}
	return found, nil
}

// recordErofs turns off the readahead of the erofs called name and records
// that it is the one on j.Target.
func (j Job) recordErofs(name string) error {
	if err := writeNumber(kernel.BDIReadahead(name), 0); err != nil {
		return err
	}
	ms, err := kernel.MountsAt(j.Target)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return errors.New("the mount is gone already")
	}
	return os.WriteFile(j.erofsRecord(ms[len(ms)-1]), []byte(name), 0o600)
}

// erofsName returns the kernel's name of the erofs m.
func (j Job) erofsName(m kernel.Mount) (string, error) {
	name, err := os.ReadFile(j.erofsRecord(m))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no record of the erofs on %s (device %s)", m.Target, m.Dev)
	}
	return string(name), err
}

func (j Job) erofsRecord(m kernel.Mount) string {
	return filepath.Join(j.Dir, "erofs-"+m.Dev)
}
