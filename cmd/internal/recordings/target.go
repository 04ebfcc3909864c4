package recordings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/handover"
)

// Names of the files beside the one that takes a trace.
const (
	lockSuffix = handover.Lock
	planSuffix = handover.Plan
	dataSuffix = handover.Data
	okSuffix   = handover.OK
	errSuffix  = handover.Err
)

// target is the file that takes a trace, and its directory, in which there are
// others. Both are open, and all others are opened relative to the directory: what
// was checked is what is written to, whatever becomes of the path.
type target struct {
	path  string
	name  string // last element of path
	dir   *os.File
	trace *os.File
}

// openTarget opens the file at path if a trace can be written there. The error is
// errdefs.ErrInvalidArgument or ErrFailedPrecondition if that is because of what
// is there.
func openTarget(path string) (_ *target, err error) {
	t := &target{path: path, name: filepath.Base(path)}
	defer func() {
		if err != nil {
			t.close()
			err = fmt.Errorf("using %s for a trace: %w", path, err)
		}
	}()
	fd, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, notThere(err)
	}
	t.dir = os.NewFile(uintptr(fd), filepath.Dir(path))
	if err := checkDir(fd); err != nil {
		return nil, err
	}
	// Not blocking: it might be a pipe.
	if t.trace, err = t.open(t.name, unix.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		return nil, notThere(err)
	}
	return t, checkFile(t.trace)
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

func checkFile(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1:
		return fmt.Errorf("it must be a regular file with one name: %w", errdefs.ErrInvalidArgument)
	case !privileged(st.Uid):
		return fmt.Errorf("it belongs to user %d: %w", st.Uid, errdefs.ErrInvalidArgument)
	case st.Size != 0:
		return fmt.Errorf("it must be empty, and has %d bytes: %w", st.Size, errdefs.ErrFailedPrecondition)
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

// open opens a file in the directory and follows no link.
func (t *target) open(name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(t.dir.Name(), name)), nil
}

// remove removes the files with these suffixes, where there are any.
func (t *target) remove(suffixes ...string) error {
	for _, s := range suffixes {
		if err := unix.Unlinkat(int(t.dir.Fd()), t.name+s, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing %s%s: %w", t.path, s, err)
		}
	}
	return nil
}

// create makes the file with a suffix, which must not be there, and has write
// fill it. It is on the disk then.
func (t *target) create(suffix string, write func(io.Writer) error) error {
	f, err := t.open(t.name+suffix, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("creating %s%s: %w", t.path, suffix, err)
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s%s: %w", t.path, suffix, err)
	}
	return nil
}

// lock removes what an earlier recording left and makes the lock file.
func (t *target) lock() error {
	if err := t.remove(lockSuffix, planSuffix, dataSuffix, okSuffix, errSuffix); err != nil {
		return err
	}
	return t.create(lockSuffix, func(io.Writer) error { return nil })
}

// locked reports whether the lock file is there, which whoever wants the trace
// removes.
func (t *target) locked() bool {
	var st unix.Stat_t
	err := unix.Fstatat(int(t.dir.Fd()), t.name+lockSuffix, &st, unix.AT_SYMLINK_NOFOLLOW)
	return !errors.Is(err, unix.ENOENT)
}

// finish has write fill the trace and create what is beside it, and then says
// that all is there.
func (t *target) finish(write func(trace io.Writer) error) error {
	err := write(t.trace)
	if err == nil {
		err = t.trace.Sync()
	}
	if err == nil {
		err = t.remove(lockSuffix)
	}
	if err == nil {
		err = t.create(okSuffix, func(io.Writer) error { return nil })
	}
	return err
}

// fail says why there is no trace, as far as that can be said.
func (t *target) fail(why error) {
	_ = t.trace.Truncate(0)
	_ = t.remove(planSuffix, dataSuffix, okSuffix, errSuffix, lockSuffix)
	_ = t.create(errSuffix, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, why)
		return err
	})
}

// close releases t.
func (t *target) close() {
	for _, f := range []*os.File{t.trace, t.dir} {
		if f != nil {
			f.Close() // what was written is synced
		}
	}
}
