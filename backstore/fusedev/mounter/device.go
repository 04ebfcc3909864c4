package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// lockDevice keeps other jobs from attaching loop devices to j.File, until the
// process ends or unlock is called. A lock on a mount point is taken before.
func (j Job) lockDevice(ctx context.Context) (unlock func(), err error) {
	// No mount point's name begins with it.
	name := "=" + filepath.Base(j.File)
	if err := j.lock(ctx, name); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(j.lockFile(name)) }, nil
}

// findLoop returns the loop device of j.File that can be written, or one without
// a name. There is at most one.
func (j Job) findLoop() (kernel.Loop, error) {
	loops, err := kernel.Loops(filepath.Dir(j.File))
	if err != nil {
		return kernel.Loop{}, err
	}
	for _, l := range loops {
		if l.File == j.File && !kernel.LoopReadOnly(l.Dev) {
			return l, nil
		}
	}
	return kernel.Loop{}, nil
}

// ownLoop opens the loop device of j.File that can be written, nil if there is
// none. One that is just being detached is waited for.
func (j Job) ownLoop(ctx context.Context) (*os.File, error) {
	for {
		l, err := j.findLoop()
		if err != nil || l.Dev == "" {
			return nil, err
		}
		loop, err := openLoop(l.Dev, j.File, true)
		if err == nil || !errors.Is(err, unix.ENXIO) {
			return loop, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// loop attaches a loop device to j.File that stays when this process ends, or
// returns the one that is there.
func (j Job) loop(ctx context.Context) (Result, error) {
	unlock, err := j.lockDevice(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	source, err := j.liveLoop(ctx)
	if err != nil || source != "" {
		return Result{Source: source}, err
	}
	file, err := openDevice(j.File, j.Writable)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	loop, err := attachLoop(file, j.Writable)
	if err != nil {
		return Result{}, err
	}
	defer loop.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	// Until here it would have gone with this process.
	return Result{Source: loop.Name()}, setAutoclear(loop, false)
}

// liveLoop is presentLoop, but waits for one that is just being detached, by what
// an earlier daemon left behind, to be gone.
func (j Job) liveLoop(ctx context.Context) (source string, err error) {
	for {
		source, err := j.presentLoop()
		if err != nil || source == "" {
			return "", err
		}
		loop, err := openLoop(source, j.File, j.Writable)
		if err == nil {
			// Its file is shown until the last who has it open closes it.
			_, err = unix.IoctlLoopGetStatus64(int(loop.Fd()))
			loop.Close()
		}
		if err == nil {
			return source, nil
		}
		if !errors.Is(err, unix.ENXIO) {
			return "", err
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
}

// presentLoop returns the loop device of an earlier job like j, "" if there is
// none. It lets go of those whose device was replaced by another of the same
// name.
func (j Job) presentLoop() (source string, err error) {
	loops, err := kernel.Loops(filepath.Dir(j.File))
	if err != nil {
		return "", err
	}
	for _, l := range loops {
		writable := !kernel.LoopReadOnly(l.Dev)
		switch {
		case l.File != j.File:
			if strings.HasPrefix(l.File, j.Replace) && !l.Autoclear {
				if err := letGo(l.Dev, l.File); err != nil {
					return "", err
				}
			}
		case !l.Autoclear && writable == j.Writable:
			source = l.Dev
		case writable:
			return "", fmt.Errorf("it is mounted from %s: %w", l.Dev, unix.EBUSY)
		}
	}
	return source, nil
}

// letGo detaches dev from file as soon as nobody has it open.
func letGo(dev, file string) error {
	loop, err := openLoop(dev, file, false)
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detaching %s: %w", dev, err)
	}
	return nil
}

// unloop detaches j.Loops.
func (j Job) unloop(ctx context.Context) (Result, error) {
	var errs []error
	for dev, file := range j.Loops {
		errs = append(errs, j.unloopOne(ctx, dev, file))
	}
	return Result{}, errors.Join(errs...)
}

// unloopOne detaches dev from file. One that is open stays as it was, or goes
// later if j is lazy or its device does not exist any more.
func (j Job) unloopOne(ctx context.Context, dev, file string) error {
	j.File = file
	unlock, err := j.lockDevice(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := errors.Join(wanted(), letGo(dev, file)); err != nil || j.Lazy {
		return err
	}
	gone, err := j.waitGone(ctx, dev, file)
	if gone {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s is open: %w", dev, unix.EBUSY)
	}
	if kerr := keep(dev, file); kerr != nil && !errors.Is(kerr, unix.ESTALE) {
		return errors.Join(err, kerr)
	}
	return err
}

// keep undoes letGo.
func keep(dev, file string) error {
	loop, err := openLoop(dev, file, false)
	if errors.Is(err, unix.ENXIO) {
		return nil // gone at the last moment
	}
	if err != nil {
		return err
	}
	defer loop.Close()
	return setAutoclear(loop, false)
}
