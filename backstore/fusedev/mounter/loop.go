package mounter

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// loopAttempts bounds the race for a free loop device with other programs.
const loopAttempts = 64

// blockSize is the logical block size of loop devices in bytes. With 512 every
// file system inside can be mounted, whatever its block size.
const blockSize = 512

// attachLoop attaches a read-only loop device with direct I/O to file and sets
// its readahead to 0. The loop device frees itself when the returned file is
// closed, unless it is mounted by then.
func attachLoop(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the loop driver: %w", err)
	}
	defer control.Close()
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("finding a free loop device: %w", err)
		}
		loop, err := configureLoop("/dev/loop"+strconv.Itoa(n), file)
		if errors.Is(err, unix.EBUSY) {
			continue // somebody was faster
		}
		if err != nil {
			return nil, err
		}
		if err := tuneLoop(loop.Name()); err != nil {
			loop.Close()
			return nil, err
		}
		return loop, nil
	}
	return nil, errors.New("finding a free loop device: all were taken by others at the last moment")
}

// configureLoop attaches the loop device dev to file.
func configureLoop(dev string, file *os.File) (*os.File, error) {
	loop, err := os.OpenFile(dev, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dev, err)
	}
	config := unix.LoopConfig{
		Fd:   uint32(file.Fd()),
		Size: blockSize,
		Info: unix.LoopInfo64{
			Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO,
		},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name())
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		loop.Close()
		return nil, fmt.Errorf("attaching %s: %w", dev, err)
	}
	return loop, nil
}

// tuneLoop checks that dev really uses direct I/O, for which the kernel's
// answer to the request is to go on without, and turns readahead off.
func tuneLoop(dev string) error {
	if !kernel.LoopDirect(dev) {
		return fmt.Errorf("attaching %s: the kernel does not use direct I/O on it", dev)
	}
	if err := writeNumber(kernel.LoopReadahead(dev), 0); err != nil {
		return fmt.Errorf("turning off the readahead of %s: %w", dev, err)
	}
	return nil
}

// writeNumber writes a setting in sysfs.
func writeNumber(file string, n int) error {
	return os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644)
}
