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

// attachLoop attaches a loop device with direct I/O to file, which was opened
// for writing if writable, and sets its readahead to 0. The loop device frees
// itself when the returned file is closed, unless it is mounted by then.
func attachLoop(file *os.File, writable bool) (*os.File, error) {
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
		loop, err := configureLoop("/dev/loop"+strconv.Itoa(n), file, writable)
		if errors.Is(err, unix.EBUSY) {
			continue // somebody was faster
		}
		if err != nil {
			return nil, err
		}
		if err := tuneLoop(loop.Name(), writable); err != nil {
			loop.Close()
			return nil, err
		}
		return loop, nil
	}
	return nil, errors.New("finding a free loop device: all were taken by others at the last moment")
}

// configureLoop attaches the loop device dev to file.
func configureLoop(dev string, file *os.File, writable bool) (*os.File, error) {
	mode, flags := os.O_RDONLY, uint32(unix.LO_FLAGS_READ_ONLY)
	if writable {
		mode, flags = os.O_RDWR, 0
	}
	loop, err := os.OpenFile(dev, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dev, err)
	}
	config := unix.LoopConfig{
		Fd:   uint32(file.Fd()),
		Size: blockSize,
		Info: unix.LoopInfo64{Flags: flags | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name())
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		loop.Close()
		return nil, fmt.Errorf("attaching %s: %w", dev, err)
	}
	return loop, nil
}

// tuneLoop checks that dev is as it was asked for, since the kernel's answer to
// what it cannot do is to go on without, and sets up its queue.
func tuneLoop(dev string, writable bool) error {
	if !kernel.LoopDirect(dev) {
		return fmt.Errorf("attaching %s: the kernel does not use direct I/O on it", dev)
	}
	if writable && kernel.LoopReadOnly(dev) {
		return fmt.Errorf("attaching %s: the kernel made it read-only", dev)
	}
	if err := limitQueue(dev, writable); err != nil {
		return fmt.Errorf("limiting the queue of %s: %w", dev, err)
	}
	// After the limits: with them the kernel sets its own again.
	if err := writeNumber(kernel.LoopReadahead(dev), 0); err != nil {
		return fmt.Errorf("turning off the readahead of %s: %w", dev, err)
	}
	return nil
}

// openLoop opens the loop device dev if it is attached to file; it stays so for
// as long as it is open.
func openLoop(dev, file string, writable bool) (*os.File, error) {
	mode := os.O_RDONLY
	if writable {
		mode = os.O_RDWR
	}
	loop, err := os.OpenFile(dev, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dev, err)
	}
	if kernel.LoopFile(dev) != file {
		loop.Close()
		return nil, fmt.Errorf("opening %s: it was detached from %s: %w", dev, file, unix.ENXIO)
	}
	return loop, nil
}

// setAutoclear says whether loop frees itself when it is closed.
func setAutoclear(loop *os.File, on bool) error {
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil {
		return fmt.Errorf("examining %s: %w", loop.Name(), err)
	}
	info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
	if on {
		info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	if err := unix.IoctlLoopSetStatus64(int(loop.Fd()), info); err != nil {
		return fmt.Errorf("changing the flags of %s: %w", loop.Name(), err)
	}
	return nil
}
