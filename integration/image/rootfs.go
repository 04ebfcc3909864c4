// Package image builds container images of real files for tests, the demo and
// benchmarks: a root file system from Debian packages, a disk image of it, and
// from that overlaybd layers as well as the ordinary layer of the same
// content.
package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/lockfile"
)

// epoch is the time stamp of everything that has none of its own, so that
// equal inputs give equal images.
var epoch = time.Unix(1_700_000_000, 0)

// Rootfs describes a root file system.
type Rootfs struct {
	// Packages are Debian package names; what they depend on comes along.
	Packages []string
	// Compile lists folders whose Python sources are byte-compiled, as a
	// package's installation would do.
	Compile []string
	// Files maps paths to contents of extra files, mode 0755.
	Files map[string]string
	// Links maps paths of symbolic links to their targets.
	Links map[string]string
	// Generated maps paths of files to their sizes; what they hold follows
	// from the path and compresses to about a half.
	Generated map[string]int64
	// Setup, if not empty, is a shell script that is run in the root file system
	// at the end, without a network, as packages' installation scripts and a
	// Dockerfile's commands would be.
	Setup string
}

// Progress says what is going on; it is called with one short line.
type Progress func(format string, args ...any)

// Build returns the folder with the root file system, made below cache unless
// an earlier run has. It needs root, apt-get and dpkg-deb.
func (r Rootfs) Build(ctx context.Context, cache string, say Progress) (string, error) {
	dir := filepath.Join(cache, "rootfs-"+r.key())
	return dir, once(dir, func() error { return r.build(ctx, cache, dir, say) })
}

// once makes what is to be found at path, unless it is there: one program and one
// goroutine at a time.
func once(path string, produce func() error) (err error) {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	lock, err := lockfile.Take(path + ".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if _, err := os.Stat(path); err == nil {
		return nil // made while this one waited
	}
	return produce()
}

func (r Rootfs) build(ctx context.Context, cache, dir string, say Progress) error {
	debs, err := r.archives(ctx, cache, say)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, "rootfs.new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	say("unpacking %d packages", len(debs))
	for _, deb := range debs {
		if err := command(ctx, "dpkg-deb", "-x", deb, tmp); err != nil {
			return err
		}
	}
	if err := r.finish(ctx, tmp, say); err != nil {
		return fmt.Errorf("completing the root file system: %w", err)
	}
	return os.Rename(tmp, dir)
}

func (r Rootfs) key() string {
	h := sha256.New()
	fmt.Fprint(h, "v3", r.Packages, r.Compile, r.Files, r.Links, r.Generated)
	if r.Setup != "" {
		fmt.Fprint(h, r.Setup)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// finish does what the packages' installation scripts would have done, as far
// as programs need it, and evens out time stamps.
func (r Rootfs) finish(ctx context.Context, root string, say Progress) error {
	for path, text := range r.Files {
		if err := writeFile(filepath.Join(root, path), text); err != nil {
			return err
		}
	}
	for path, size := range r.Generated {
		if err := generate(filepath.Join(root, path), path, size); err != nil {
			return err
		}
	}
	for path, target := range r.Links {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "etc", "root"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := command(ctx, "/sbin/ldconfig", "-r", root); err != nil {
		return err
	}
	// It notes inode numbers and times, which differ from build to build.
	if err := os.RemoveAll(filepath.Join(root, "var/cache/ldconfig")); err != nil {
		return err
	}
	if err := r.compile(ctx, root, say); err != nil {
		return err
	}
	if err := r.setup(ctx, root, say); err != nil {
		return err
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	return evenTimes(root)
}

// compile byte-compiles Python sources.
func (r Rootfs) compile(ctx context.Context, root string, say Progress) error {
	if len(r.Compile) == 0 {
		return nil
	}
	say("compiling Python sources")
	args := append([]string{"PYTHONHASHSEED=0", "chroot", root, "/usr/bin/python3", "-m", "compileall", "-q",
		"--invalidation-mode", "unchecked-hash"}, r.Compile...)
	// Some packages carry test files that are no valid Python on purpose.
	if err := command(ctx, "env", args...); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// evenTimes sets the modification time of what was made just now to epoch.
func evenTimes(root string) error {
	now := time.Now()
	stamp := []unix.Timespec{unix.NsecToTimespec(epoch.UnixNano()), unix.NsecToTimespec(epoch.UnixNano())}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || now.Sub(info.ModTime()).Abs() > 24*time.Hour {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, stamp, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o755)
}

// generate makes a file of the given size, see fill.
func generate(path, seed string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fill(f, seed, size), f.Close())
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
