package mounter

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// format makes a file system on j.File.
func (j Job) format(ctx context.Context) (Result, error) {
	unlock, err := j.lockDevice(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if l, err := j.findLoop(); err != nil {
		return Result{}, err
	} else if l.Dev != "" {
		return Result{}, fmt.Errorf("it is in use through %s: %w", l.Dev, unix.EBUSY)
	}
	file, err := openDevice(j.File, true)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	if err := wanted(); err != nil {
		return Result{}, err
	}
	loop, err := attachLoop(file, true)
	if err != nil {
		return Result{}, err
	}
	argv, err := mkfsCommand(j.FSType, j.Options, loop.Name())
	if err == nil {
		err = succeed(ctx, argv)
	}
	loop.Close()
	if err != nil {
		return Result{}, err
	}
	// What is mounted next must not find this one's cache.
	gone, err := j.waitGone(ctx, loop.Name(), j.File)
	if err == nil && !gone {
		err = fmt.Errorf("%s is still open after mkfs: %w", loop.Name(), unix.EBUSY)
	}
	return Result{}, err
}
