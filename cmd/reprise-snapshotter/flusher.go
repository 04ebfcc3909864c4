package main

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// markFlusher tells the kernel that this process writes out what file systems on
// its devices have dirty (PR_SET_IO_FLUSHER, prctl(2)), so that none of its
// threads, nor those they start, waits in memory reclaim for such pages, which
// would be for itself. It reports false where the process may not: without
// CAP_SYS_RESOURCE, before Linux 5.6, and in binaries with cgo, which has
// threads that Go does not know of. Then docs/device.md, "Memory", is what helps.
func markFlusher() (bool, error) {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	switch {
	case errno == 0:
		return true, nil
	case errors.Is(errno, unix.EPERM), errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.ENOTSUP):
		return false, nil
	}
	return false, fmt.Errorf("marking the process as one that flushes: %w", errno)
}
