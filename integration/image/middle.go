package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Middle is an image of some tens of MB whose layers change what is below them
// in every way a build does.
func Middle() Layered {
	base := Small()
	base.Packages = append(base.Packages, "perl", "tzdata", "python3-minimal", "ca-certificates")
	return Layered{Name: "middle", Version: 1, Args: []string{"/bin/sh", "-c", "cat /etc/layers; echo done"}, Steps: []Step{
		{Rootfs: base, Edit: prepare},
		{Edit: firstChanges, Opaque: []string{"/srv/remade", "/usr/share/zoneinfo/America"}},
		{Edit: secondChanges, Compression: Zstd, Opaque: []string{"/srv/emptied"}},
		{Rootfs: Rootfs{Packages: []string{"less", "file"}}, Compression: Plain},
		{Edit: lastChanges},
	}}
}

// edits runs functions until one fails.
func edits(steps ...func() error) error {
	for i, s := range steps {
		if err := s(); err != nil {
			return fmt.Errorf("edit %d: %w", i+1, err)
		}
	}
	return nil
}

// editor makes changes below a folder, each as a function for edits.
type editor string

func (e editor) path(p string) string { return filepath.Join(string(e), p) }

func (e editor) write(p, text string) func() error {
	return func() error { return writeFile(e.path(p), text) }
}

func (e editor) add(p, text string) func() error {
	return func() error { return appendTo(e.path(p), text) }
}

func (e editor) remove(paths ...string) func() error {
	return func() error {
		for _, p := range paths {
			if _, err := os.Lstat(e.path(p)); err != nil {
				return err
			}
			if err := os.RemoveAll(e.path(p)); err != nil {
				return err
			}
		}
		return nil
	}
}

func (e editor) rename(from, to string) func() error {
	return func() error { return os.Rename(e.path(from), e.path(to)) }
}

func (e editor) mkdir(p string, mode uint32) func() error {
	return func() error {
		return errors.Join(os.MkdirAll(e.path(p), 0o755), unix.Chmod(e.path(p), mode))
	}
}

func (e editor) chmod(p string, mode uint32) func() error {
	return func() error { return unix.Chmod(e.path(p), mode) }
}

func (e editor) chown(p string, uid, gid int) func() error {
	return func() error { return os.Lchown(e.path(p), uid, gid) }
}

func (e editor) touch(p string, sec, nsec int64) func() error {
	t := unix.NsecToTimespec(time.Unix(sec, nsec).UnixNano())
	return func() error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, e.path(p), []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func (e editor) link(from, to string) func() error {
	return func() error { return os.Link(e.path(from), e.path(to)) }
}

func (e editor) symlink(target, p string) func() error {
	return func() error { return os.Symlink(target, e.path(p)) }
}

func (e editor) setxattr(p, name, value string) func() error {
	return func() error { return unix.Lsetxattr(e.path(p), name, []byte(value), 0) }
}

// prepare adds things to change to what the packages hold.
func prepare(root string) error {
	e := editor(root)
	var many []func() error
	for i := range 200 {
		many = append(many, e.write(fmt.Sprintf("/srv/many/%03d", i), fmt.Sprintln("file", i)))
	}
	return errors.Join(edits(many...), edits(
		e.write("/etc/layers", "layer 1\n"),
		e.write("/srv/remade/old/deep/file", "old"), e.write("/srv/remade/kept-name", "old"),
		e.write("/srv/emptied/a", "a"), e.write("/srv/emptied/b/c", "c"),
		e.write("/srv/dir-to-file/x/y", "y"), e.write("/srv/file-to-dir", "a file"),
		e.write("/srv/dir-to-link/inside", "inside"), e.symlink("dir-to-link", "/srv/link-to-dir"),
		e.symlink("/etc/layers", "/srv/link-to-file"), e.write("/srv/file-to-link", "file"),
		e.write("/srv/moved/one", "1"), e.write("/srv/moved/two/three", "3"),
		e.write("/srv/target/existing", "existing"), e.symlink("target", "/srv/through"),
		e.write("/srv/links/first", "linked"), e.link("/srv/links/first", "/srv/links/second"),
		e.link("/srv/links/first", "/srv/links/third"),
		e.write("/srv/alone", "to be linked from above"),
		e.mkdir("/srv/metadata", 0o755), e.write("/srv/metadata/child", "child"),
		e.mkdir("/srv/sticky", 0o1777), e.write("/srv/back", "will go and come back"),
	))
}

func firstChanges(root string) error {
	e := editor(root)
	return edits(
		e.add("/etc/layers", "layer 2\n"),
		e.write("/srv/many/017", "overwritten"), e.remove("/srv/many/042", "/srv/many/199"),
		e.chmod("/srv/many/100", 0o4750), e.chown("/srv/many/101", 100_000, 70_000),
		e.touch("/srv/many/102", 1_234_567_890, 987_654_321),
		// The same name again, as a new directory: nothing of the old one is left.
		e.remove("/srv/remade"), e.write("/srv/remade/new", "new"), e.write("/srv/remade/kept-name", "new"),
		e.remove("/usr/share/zoneinfo/America"), e.write("/usr/share/zoneinfo/America/Nowhere", "no zone"),
		e.remove("/srv/dir-to-file"), e.write("/srv/dir-to-file", "now a file"),
		e.remove("/srv/file-to-dir"), e.write("/srv/file-to-dir/with", "a file in it"),
		e.remove("/srv/dir-to-link"), e.symlink("metadata", "/srv/dir-to-link"),
		e.remove("/srv/link-to-dir"), e.write("/srv/link-to-dir/real", "real"),
		e.remove("/srv/link-to-file"), e.write("/srv/link-to-file", "now a file"),
		e.remove("/srv/file-to-link"), e.symlink("many/000", "/srv/file-to-link"),
		e.rename("/srv/moved", "/srv/moved-here"), e.rename("/srv/many/150", "/srv/many-150"),
		e.write("/srv/through/written", "through a link"),
		// One link more to files that only the lower layer holds.
		e.link("/srv/alone", "/srv/alone-no-more"), e.link("/srv/links/second", "/srv/links/fourth"),
		// Nothing but the directory itself changes.
		e.chmod("/srv/metadata", 0o2750), e.chown("/srv/metadata", 33, 33), e.touch("/srv/metadata", 1_500_000_000, 1),
		e.setxattr("/srv/metadata", "user.note", "on a directory"),
		e.setxattr("/bin/busybox", "security.capability", netRaw),
		e.remove("/srv/back"),
	)
}

func secondChanges(root string) error {
	e := editor(root)
	return edits(
		e.add("/etc/layers", "layer 3\n"),
		e.remove("/srv/dir-to-file"), e.write("/srv/dir-to-file/again", "a directory again"),
		e.remove("/srv/file-to-dir"), e.write("/srv/file-to-dir", "a file again"),
		e.write("/srv/many/017", "overwritten twice"), e.write("/srv/many/042", "back"),
		e.remove("/srv/emptied"), e.mkdir("/srv/emptied", 0o755),
		// One of four links gets contents of its own.
		e.remove("/srv/links/third"), e.write("/srv/links/third", "no longer linked"),
		e.write("/srv/back", "came back"), e.chmod("/srv/remade", 0o700),
		e.remove("/srv/moved-here/two"), e.rename("/srv/moved-here", "/srv/moved"),
		e.remove("/usr/share/doc"),
	)
}

func lastChanges(root string) error {
	e := editor(root)
	return edits(
		e.add("/etc/layers", "layer 5\n"),
		e.remove("/srv/remade/new"), e.write("/srv/emptied/d", "d"),
		e.chmod("/srv/sticky", 0o755), e.remove("/srv/link-to-dir"),
		e.touch("/srv/through", 1_400_000_000, 5), e.remove("/srv/alone"),
	)
}
