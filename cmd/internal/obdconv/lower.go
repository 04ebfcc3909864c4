package obdconv

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	rootfs "github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// lower is a file system with the layers below one that is to be unpacked into it.
//
// Where containerd unpacks a layer for overlayfs, the layer has a directory of its
// own, so that what it says of what is below it has nothing to do with the order of
// its entries, and its entries do not mix with what is below. For the same in one
// file system:
//
//   - What the layer removes goes before any of its own files come, wherever the
//     archive says it. (containerd would remove new files in an implied directory.)
//   - A directory that the layer has an entry for loses the extended attributes that
//     it has below.
//   - What is no directory below becomes one where the layer has something in it. A
//     link to a directory becomes a copy of that without what is in it: links of
//     other layers are not followed.
type lower struct {
	root string
	// own are paths of the layer, "/..."; whether they are directories.
	own map[string]bool
}

func newLower(root string) *lower { return &lower{root, map[string]bool{"/": true}} }

// yield makes room for an archive.
func (w *lower) yield(ctx context.Context, r io.Reader) error {
	var gone removals
	for tr := tar.NewReader(r); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return w.remove(gone)
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := w.entry(path.Clean("/"+h.Name), h.Typeflag == tar.TypeDir, &gone); err != nil {
			return err
		}
	}
}

// removals are what a layer removes of what is below it.
type removals struct {
	names   []string
	emptied []string // directories
}

// entry makes room for an entry of an archive, or notes what it says is removed.
func (w *lower) entry(name string, isDir bool, gone *removals) error {
	if name == "/" {
		return nil
	}
	dir, base := path.Dir(name), path.Base(name)
	real, err := w.enter(dir)
	if err != nil || !real { // below a link of the layer itself, which is followed
		return err
	}
	switch removed := strings.TrimPrefix(base, whiteout); {
	case base == opaque:
		gone.emptied = append(gone.emptied, dir)
	case removed == base:
		return w.add(name, isDir)
	case !slices.Contains([]string{"", ".", ".."}, removed): // those are refused later
		gone.names = append(gone.names, path.Join(dir, removed))
	}
	return nil
}

// remove removes what a layer says.
func (w *lower) remove(gone removals) error {
	for _, dir := range gone.emptied {
		if err := w.empty(dir); err != nil {
			return err
		}
	}
	for _, name := range gone.names {
		if err := os.RemoveAll(w.at(name)); err != nil {
			return err
		}
	}
	return nil
}

// at returns the path of a name whose parents are directories.
func (w *lower) at(name string) string { return filepath.Join(w.root, name) }

// enter makes dir and what it is in directories, as far as they exist. It returns
// false if the layer has something else there.
func (w *lower) enter(dir string) (bool, error) {
	if isDir, mine := w.own[dir]; mine {
		return isDir, nil
	}
	if real, err := w.enter(path.Dir(dir)); !real || err != nil {
		return false, err
	}
	w.own[dir] = true // of it, all that is below counts: it is implied
	is, err := os.Lstat(w.at(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil || is.IsDir():
		return err == nil, err
	}
	like := w.target(dir, is)
	if err := os.Remove(w.at(dir)); err != nil {
		return false, err
	}
	if err := os.Mkdir(w.at(dir), 0o755); err != nil {
		return false, err
	}
	if like == "" {
		return true, nil
	}
	return true, imitate(w.at(dir), like)
}

// target returns the directory that a link leads to, within the file system; "" if
// there is none.
func (w *lower) target(name string, is os.FileInfo) string {
	if is.Mode().Type() != os.ModeSymlink {
		return ""
	}
	to, err := rootfs.RootPath(w.root, name)
	if err != nil {
		return ""
	}
	if st, err := os.Lstat(to); err != nil || !st.IsDir() {
		return ""
	}
	return to
}

// add notes an entry of the layer.
func (w *lower) add(name string, isDir bool) error {
	_, again := w.own[name]
	w.own[name] = isDir
	if again || !isDir {
		return nil
	}
	is, err := os.Lstat(w.at(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil || !is.IsDir():
		return err
	}
	names, err := sysx.LListxattr(w.at(name))
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	for _, attr := range names {
		if err := sysx.LRemovexattr(w.at(name), attr); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	return nil
}

// empty removes what is in a directory, if there is one.
func (w *lower) empty(dir string) error {
	entries, err := os.ReadDir(w.at(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.at(dir), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// imitate gives dir the owner, mode, times and extended attributes of another
// directory, as containerd does for a directory that a layer implies.
func imitate(dir, like string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(like, &st); err != nil {
		return err
	}
	if err := os.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(dir, st.Mode&0o7777); err != nil {
		return err
	}
	names, err := sysx.LListxattr(like)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	for _, attr := range names {
		if strings.HasPrefix(attr, "trusted.") {
			continue
		}
		value, err := sysx.LGetxattr(like, attr)
		if err != nil {
			return err
		}
		if err := sysx.LSetxattr(dir, attr, value, 0); err != nil {
			return err
		}
	}
	times := []unix.Timespec{unix.Timespec(rootfs.StatAtime(&st)), unix.Timespec(rootfs.StatMtime(&st))}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, times, unix.AT_SYMLINK_NOFOLLOW)
}
