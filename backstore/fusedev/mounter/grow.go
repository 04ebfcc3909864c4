package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// grow makes the loop device of j.File as large as the file, and the file system
// on j.Target, if there is one, as large as the loop device.
func (j Job) grow(ctx context.Context) (Result, error) {
	if j.Target != "" {
		if err := j.lock(ctx, j.Target); err != nil {
			return Result{}, err
		}
	}
	unlock, err := j.lockDevice(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	loop, err := j.ownLoop(ctx)
	if err != nil {
		return Result{}, err
	}
	if loop == nil {
		if j.Target == "" {
			return Result{}, nil // it will have the new size
		}
		return Result{}, errNotOurs
	}
	defer loop.Close()
	if err := j.growLoop(loop); err != nil || j.Target == "" {
		return Result{}, err
	}
	return Result{}, j.growMounted(ctx, loop.Name())
}

// growLoop sets the size of loop.
func (j Job) growLoop(loop *os.File) error {
	// Older kernels use the size that they remember of the file: it is made
	// to ask.
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, j.File, unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &st); err != nil {
		return fmt.Errorf("asking for the size of the device: %w", err)
	}
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("setting the size of %s: %w", loop.Name(), err)
	}
	sectors, err := readNumber(kernel.LoopSize(loop.Name()))
	if err != nil {
		return fmt.Errorf("asking for the size of %s: %w", loop.Name(), err)
	}
	if uint64(sectors)*512 != st.Size {
		return fmt.Errorf("%s has %d bytes, the device %d", loop.Name(), sectors*512, st.Size)
	}
	return nil
}

// growMounted grows the file system on j.Target, which must be that of dev.
func (j Job) growMounted(ctx context.Context, dev string) error {
	ms, err := kernel.MountsAt(j.Target)
	if err != nil {
		return err
	}
	if len(ms) == 0 || ms[len(ms)-1].Source != dev {
		return errors.Join(errNotOurs, fmt.Errorf("%s is not on %s", dev, j.Target))
	}
	switch t := ms[len(ms)-1].FSType; t {
	case "ext4":
		// The kernel lets nobody do so without it, root or not.
		if err := succeed(ctx, []string{"resize2fs", dev}); err != nil {
			return fmt.Errorf("%w (a mounted ext4 grows only with CAP_SYS_RESOURCE)", err)
		}
		return nil
	case "xfs":
		return succeed(ctx, []string{"xfs_growfs", "-d", j.Target})
	default:
		return fmt.Errorf("file system type %q cannot grow", t)
	}
}
