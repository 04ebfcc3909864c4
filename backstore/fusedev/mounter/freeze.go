package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// Requests of linux/fs.h, _IOWR('X', 119, int) and 120.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// freeze freezes the file system on j.Target, says so with frozen, and thaws it
// when the parent process closes the input, ended or not.
func (j Job) freeze(ctx context.Context, frozen func() error) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	if err := j.thawLeft(); err != nil {
		return Result{}, err
	}
	dir, err := j.openTarget()
	if err != nil {
		return Result{}, err
	}
	defer dir.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	if err := j.note(frozenRecord, j.Target); err != nil {
		return Result{}, err
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		return Result{}, errors.Join(fmt.Errorf("freezing: %w", err), j.forget(frozenRecord))
	}
	// A parent that gave up is the end of ctx, too.
	err = frozen()
	if err == nil {
		<-ctx.Done()
	}
	return Result{}, errors.Join(err, j.thaw(dir))
}

// thaw thaws the file system of dir.
func (j Job) thaw(dir *os.File) error {
	for {
		err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EBUSY):
			continue
		case err != nil:
			return errors.Join(fmt.Errorf("thawing: %w (was it thawed by somebody else?)", err), j.forget(frozenRecord))
		}
		return j.forget(frozenRecord)
	}
}

// thawLeft thaws the file system on j.Target if a job that was killed left it
// frozen. It is called with the lock on j.Target.
func (j Job) thawLeft() error {
	text, err := j.noted(frozenRecord)
	if err != nil || text == "" {
		return err
	}
	dir, err := j.openTarget()
	if errors.Is(err, errNotOurs) {
		return j.forget(frozenRecord)
	}
	if err != nil {
		return fmt.Errorf("thawing what was left frozen: %w", err)
	}
	defer dir.Close()
	// It need not be frozen.
	err = unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thawing what was left frozen: %w", err)
	}
	return j.forget(frozenRecord)
}

// thawTargets thaws what was left frozen on j.Targets.
func (j Job) thawTargets(ctx context.Context) (Result, error) {
	var errs []error
	for _, t := range j.Targets {
		j.Target = t
		errs = append(errs, errors.Join(j.lock(ctx, t), j.thawLeft()))
	}
	return Result{}, errors.Join(errs...)
}

// errNotOurs says that no device is mounted on a target.
var errNotOurs = errors.New("no device is mounted there")

// openTarget opens the root directory of the device that is mounted on
// j.Target, and of nothing else: freezing the file system of a directory that
// happens to be there would stop the machine.
func (j Job) openTarget() (*os.File, error) {
	ms, err := kernel.MountsAt(j.Target)
	if err != nil {
		return nil, err
	}
	if len(ms) == 0 || !ms[len(ms)-1].Writable() || !j.isDevice(ms[len(ms)-1].File()) {
		return nil, errNotOurs
	}
	return openMount(ms[len(ms)-1])
}

// openMount opens the root directory of m, if it is the topmost mount of its
// mount point.
func openMount(m kernel.Mount) (*os.File, error) {
	dir, err := os.OpenFile(m.Target, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the mount point: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		dir.Close()
		return nil, fmt.Errorf("examining the mount point: %w", err)
	}
	if dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)); dev != m.Dev {
		dir.Close()
		return nil, fmt.Errorf("%s is on device %s, not %s: %w", m.Target, dev, m.Dev, errNotOurs)
	}
	return dir, nil
}
