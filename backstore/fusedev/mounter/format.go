package mounter

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// format makes a file system on j.File.
func (j Job) format(ctx context.Context) (Result, error) {
	unlock, err := j.lockDevice(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	loop, err := j.ownLoop(ctx)
	if err == nil && loop == nil {
		loop, err = j.newLoop()
	}
	if err != nil {
		return Result{}, err
	}
	dev := loop.Name()
	err = j.makeOn(ctx, dev)
	loop.Close()
	if err != nil {
		return Result{}, err
	}
	// What is mounted next must not find this one's cache.
	gone, err := j.waitEnd(ctx, dev, j.File)
	if err == nil && !gone {
		err = fmt.Errorf("%s is still open after mkfs: %w", dev, unix.EBUSY)
	}
	return Result{}, err
}

// newLoop attaches a new loop device to j.File, to be written.
func (j Job) newLoop() (*os.File, error) {
	file, err := openDevice(j.File, true)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := wanted(); err != nil {
		return nil, err
	}
	return attachLoop(file, true)
}

// makeOn makes a file system on dev, unless it is in use.
func (j Job) makeOn(ctx context.Context, dev string) error {
	if inUse(dev) {
		return fmt.Errorf("it is in use through %s: %w", dev, unix.EBUSY)
	}
	argv, err := mkfsCommand(j.FSType, j.Options, dev)
	if err != nil {
		return err
	}
	return succeed(ctx, argv)
}
