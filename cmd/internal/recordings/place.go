package recordings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// openDir opens the directory at path, which is one of those in below, or somewhere
// below one. Those are the administrator's, so that links lead to them; from there
// on no link is followed, and nobody but root may have a say in what is where.
func openDir(path string, below []string) (*os.File, error) {
	for _, base := range below {
		base = filepath.Clean(base)
		rel, err := filepath.Rel(base, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		dir, err := openBase(base)
		for name := range strings.SplitSeq(rel, "/") {
			if err != nil {
				break
			}
			if name != "." {
				dir, err = step(dir, name)
			}
		}
		return dir, err
	}
	return nil, fmt.Errorf("it is not below a directory of trace.record_paths (%s): %w", strings.Join(below, ", "), errdefs.ErrPermissionDenied)
}

// openBase opens a directory that the administrator named. It may be a link, but not
// somebody else's: in a directory like /tmp anybody can make one.
func openBase(path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, notThere(err)
	}
	if !privileged(st.Uid) {
		return nil, fmt.Errorf("%s belongs to user %d: %w", path, st.Uid, errdefs.ErrInvalidArgument)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, notThere(err)
	}
	return checked(fd, path)
}

// step opens a directory within dir, which it closes.
func step(dir *os.File, name string) (*os.File, error) {
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, notThere(err)
	}
	return checked(fd, filepath.Join(dir.Name(), name))
}

// checked returns the directory that is open as fd if it is root's.
func checked(fd int, path string) (*os.File, error) {
	dir := os.NewFile(uintptr(fd), path)
	if err := checkDir(fd); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// checkDir returns an error if others than root can put files of their own in
// place of root's.
func checkDir(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case !privileged(st.Uid):
		return fmt.Errorf("its directory belongs to user %d: %w", st.Uid, errdefs.ErrInvalidArgument)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("others can write to its directory, which is not sticky: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// privileged reports whether what belongs to a user is out of others' reach:
// root's, and this process's own.
func privileged(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// notThere classifies errors of opening.
func notThere(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("it must exist: %w: %w", err, errdefs.ErrFailedPrecondition)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("it must not be a symbolic link: %w", errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.ENXIO): // a pipe that nobody reads, a socket
		return fmt.Errorf("it must be a regular file with one name: %w", errdefs.ErrInvalidArgument)
	}
	return err
}
