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
	"github.com/reprise-containers/reprise/tracelayer"
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

// openTarget opens the file at path, which is below one of the directories in below,
// if a trace can be written there: it is empty, or, with begun, may have something of
// one in it. The error is errdefs.ErrInvalidArgument, ErrFailedPrecondition or
// ErrPermissionDenied if that is because of what is there, or where that is.
func openTarget(path string, below []string, begun bool) (_ *target, err error) {
	t := &target{path: path, name: filepath.Base(path)}
	defer func() {
		if err != nil {
			t.close()
			err = fmt.Errorf("using %s for a trace: %w", path, err)
		}
	}()
	if t.dir, err = openDir(filepath.Dir(path), below); err != nil {
		return nil, err
	}
	// Not blocking: it might be a pipe.
	if t.trace, err = t.open(t.name, unix.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return nil, notThere(err)
	}
	size, err := checkFile(t.trace)
	if err == nil && size != 0 && !begun {
		err = fmt.Errorf("it must be empty, and has %d bytes: %w", size, errdefs.ErrFailedPrecondition)
	}
	return t, err
}

// checkFile returns the size of f in bytes, and an error if it is not a file that
// nobody but root has.
func checkFile(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1:
		return 0, fmt.Errorf("it must be a regular file with one name: %w", errdefs.ErrInvalidArgument)
	case !privileged(st.Uid):
		return 0, fmt.Errorf("it belongs to user %d: %w", st.Uid, errdefs.ErrInvalidArgument)
	}
	return st.Size, nil
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
func (t *target) locked() bool { return t.has(lockSuffix) }

// has reports whether there is a file with a suffix, as far as that can be said.
func (t *target) has(suffix string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(int(t.dir.Fd()), t.name+suffix, &st, unix.AT_SYMLINK_NOFOLLOW)
	return !errors.Is(err, unix.ENOENT)
}

// complete reports whether the whole trace has been written, and so what is beside
// it, which is written before.
func (t *target) complete() bool {
	text, err := io.ReadAll(io.NewSectionReader(t.trace, 0, tracelayer.MaxSlot+1))
	if err != nil || len(text) > tracelayer.MaxSlot {
		return false
	}
	_, err = tracelayer.Decode(text)
	return err == nil
}

// finish has write fill the trace and create what is beside it, and then says
// that all is there.
func (t *target) finish(write func(trace io.Writer) error) error {
	err := write(t.trace)
	if err == nil {
		err = t.trace.Sync()
	}
	if err == nil {
		err = t.succeed()
	}
	return err
}

// succeed says that all is there.
func (t *target) succeed() error {
	if err := t.remove(lockSuffix); err != nil {
		return err
	}
	return t.create(okSuffix, func(io.Writer) error { return nil })
}

// fail says why there is no trace, as far as that can be said.
func (t *target) fail(why error) {
	_ = t.trace.Truncate(0)
	_ = t.remove(planSuffix, dataSuffix, okSuffix, errSuffix, lockSuffix)
	t.say(why)
}

// say creates the file with the reason why there is no trace.
func (t *target) say(why error) {
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
