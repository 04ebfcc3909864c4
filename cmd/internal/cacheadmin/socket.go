package cacheadmin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// within calls f with a short path of the socket in dir: that of a socket may have
// no more than 107 bytes, and that of a folder as many as it likes.
func within(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), SocketName))
}

// Listen listens at the socket in dir, which the caller has locked: a socket that
// is there is one that a killed process left.
func Listen(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, SocketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing stale admin socket: %w", err)
	}
	var l *net.UnixListener
	err := within(dir, func(path string) (err error) {
		// Nobody may connect before the mode is set.
		old := unix.Umask(0o177)
		defer unix.Umask(old)
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening at the admin socket in %s: %w", dir, err)
	}
	l.SetUnlinkOnClose(false) // by a path that does not exist then
	return &listener{UnixListener: l, path: filepath.Join(dir, SocketName)}, nil
}

// listener removes its socket when it is closed for the first time.
type listener struct {
	*net.UnixListener
	path  string
	close sync.Once
}

func (l *listener) Close() (err error) {
	l.close.Do(func() { err = errors.Join(os.Remove(l.path), l.UnixListener.Close()) })
	return err
}
