package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// busyInterval is how often a writable file system that is busy is synced and
// tried again.
const busyInterval = 100 * time.Millisecond

// unmount unmounts everything on j.Target.
func (j Job) unmount(ctx context.Context) (Result, error) {
	if err := j.lock(ctx, j.Target); err != nil {
		return Result{}, err
	}
	defer os.Remove(j.lockFile(j.Target))
	var res Result
	if err := j.thawLeft(); err != nil {
		return res, err
	}
	for {
		ms, err := kernel.MountsAt(j.Target)
		if err != nil {
			return res, err
		}
		if len(ms) == 0 {
			return res, j.checkEnd(ctx, &res)
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
		if err := j.unmountTop(ctx, m, &res); err != nil {
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

// checkEnd makes sure that a writable file system that was once mounted on
// j.Target has ended, also when an earlier job unmounted it.
func (j Job) checkEnd(ctx context.Context, res *Result) error {
	file, err := j.noted(writableRecord)
	if err != nil || file == "" || res.Pinned != "" {
		return err
	}
	j.File = file
	l, err := j.findLoop()
	if err != nil {
		return err
	}
	if l.Dev != "" {
		ended, err := j.waitEnd(ctx, l.Dev, file)
		if err != nil {
			return err
		}
		if !ended {
			res.Pinned = l.Dev
			return nil
		}
	}
	return j.forget(writableRecord)
}

// unmountTop unmounts m, the topmost mount on j.Target.
//
// One that can be written is synced before: umount(2) does so only if it ends
// the file system, and does not say how that went.
func (j Job) unmountTop(ctx context.Context, m kernel.Mount, res *Result) error {
	deadline := time.Now().Add(j.Patience)
	interval := pollInterval
	for {
		res.Unsynced = ""
		if m.Writable() && j.isDevice(m.File()) {
			interval = busyInterval
			if err := syncMount(m); err != nil {
				res.Unsynced = err.Error()
			}
		}
		err := unix.Unmount(j.Target, unix.UMOUNT_NOFOLLOW)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := errors.Join(pauseFor(ctx, interval), wanted()); err != nil {
			return err
		}
	}
}

// syncMount writes out the file system of m.
func syncMount(m kernel.Mount) error {
	dir, err := openMount(m)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("writing %s out: %w", m.Target, err)
	}
	return nil
}

// isDevice reports whether file is a device's.
func (j Job) isDevice(file string) bool {
	return j.Devices != "" && filepath.Dir(file) == j.Devices
}

// pinned waits for the end of the file system that was m, and returns its name
// if it does not end: umount(2) says nothing about that, and whoever cloned
// the mount namespace in the meantime has a copy of the mount.
func (j Job) pinned(ctx context.Context, m kernel.Mount, file, erofs string) (string, error) {
	if erofs != "" {
		gone, err := j.wait(ctx, func() bool { return !kernel.ErofsAlive(erofs) })
		if gone || err != nil {
			return "", err
		}
		return erofs, nil
	}
	if !kernel.IsLoop(m.Source) || file == "" {
		return "", nil
	}
	ended, err := j.waitEnd(ctx, m.Source, file)
	if ended || err != nil {
		return "", err
	}
	return m.Source, nil
}

// waitEnd waits up to j.Patience until no file system is mounted from dev, on
// file. Most loop devices end with it; one that was handed out does not.
func (j Job) waitEnd(ctx context.Context, dev, file string) (ended bool, err error) {
	return j.wait(ctx, func() bool {
		return kernel.LoopFile(dev) != file || !kernel.LoopAutoclear(dev) && !inUse(dev)
	})
}

// waitGone waits up to j.Patience until dev is not attached to file any more.
func (j Job) waitGone(ctx context.Context, dev, file string) (gone bool, err error) {
	return j.wait(ctx, func() bool { return kernel.LoopFile(dev) != file })
}

// wait waits up to j.Patience until done.
func (j Job) wait(ctx context.Context, done func() bool) (bool, error) {
	deadline := time.Now().Add(j.Patience)
	for {
		if done() {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := pause(ctx); err != nil {
			return false, err
		}
	}
}

// detach unmounts j.Targets lazily.
func (j Job) detach(ctx context.Context) error {
	for _, t := range j.Targets {
		if err := errors.Join(j.lock(ctx, t), wanted()); err != nil {
			return err
		}
		j.Target = t
		// A frozen file system would never end. That it is dead is known.
		_ = j.thawLeft()
		err := unix.Unmount(t, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", t, err)
		}
		if err := errors.Join(j.forget(writableRecord), j.forget(frozenRecord)); err != nil {
			return err
		}
		_ = os.Remove(j.lockFile(t))
	}
	return nil
}
