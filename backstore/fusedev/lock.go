package fusedev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is wrapped by Open's error if another daemon has the state
// directory.
var ErrInUse = errors.New("another daemon is serving")

const (
	// lockTimeout is how long a daemon that was just killed may take to
	// vanish.
	lockTimeout  = 10 * time.Second
	lockInterval = 20 * time.Millisecond
)

// lockState takes the lock on the state directory dir. The kernel frees it
// when the last thread of its owner is gone, and only then is it certain that
// no thread of a killed daemon takes another request from /dev/fuse.
func lockState(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			defer f.Close()
			return nil, fmt.Errorf("%w: process %s has locked %s", ErrInUse, owner(f), f.Name())
		case <-time.After(lockInterval):
		}
	}
	if err := writeOwner(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeOwner notes this process in the lock file, for the error message of
// the next one.
func writeOwner(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func owner(f *os.File) string {
	p := make([]byte, 20)
	n, _ := f.ReadAt(p, 0)
	return strings.TrimSpace(string(p[:n]))
}
