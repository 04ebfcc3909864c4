package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// unmount unmounts everything on j.Target.
func (j Job) unmount(ctx context.Context) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	defer os.Remove(j.lockFile(j.Target))
	var res Result
	for {
		ms, err := kernel.MountsAt(j.Target)
		if err != nil || len(ms) == 0 {
			return res, err
		}
		m := ms[len(ms)-1]
		file, name := m.File(), ""
		if m.FSType == "erofs" && !kernel.IsLoop(m.Source) {
			// Without the record only the check for pins is lost.
			name, _ = j.erofsName(m)
		}
		// With the lock: if the parent is gone, its successor may soon
		// mount here, and that is not what was to be unmounted.
		if err := wanted(); err != nil {
			return res, err
		}
		if err := j.unmountTop(ctx); err != nil {
			return res, err
		}
		if p, err := j.pinned(ctx, m, file, name); err != nil {
			return res, err
		} else if p != "" {
			res.Pinned = p
		}
		if name != "" {
			_ = os.Remove(j.erofsRecord(m))
		}
	}
}

// unmountTop unmounts the topmost mount on j.Target.
func (j Job) unmountTop(ctx context.Context) error {
	deadline := time.Now().Add(j.Patience)
	for {
		err := unix.Unmount(j.Target, unix.UMOUNT_NOFOLLOW)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := errors.Join(pause(ctx), wanted()); err != nil {
			return err
		}
	}
}

// pinned waits for the end of the file system that was m, and returns its name
// if it does not end: umount(2) says nothing about that, and whoever cloned
// the mount namespace in the meantime has a copy of the mount.
func (j Job) pinned(ctx context.Context, m kernel.Mount, file, erofs string) (string, error) {
	deadline := time.Now().Add(j.Patience)
	for {
		switch {
		case kernel.IsLoop(m.Source):
			if file == "" || kernel.LoopFile(m.Source) != file {
				return "", nil
			}
		case erofs != "":
			if !kernel.ErofsAlive(erofs) {
				return "", nil
			}
		default:
			return "", nil
		}
		if time.Now().After(deadline) {
			if erofs != "" {
				return erofs, nil
			}
			return m.Source, nil
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
}

// detach unmounts j.Targets lazily.
func (j Job) detach(ctx context.Context) error {
	for _, t := range j.Targets {
		if err := errors.Join(j.lock(ctx, t), wanted()); err != nil {
			return err
		}
		err := unix.Unmount(t, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", t, err)
		}
		_ = os.Remove(j.lockFile(t))
	}
	return nil
}
