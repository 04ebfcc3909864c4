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
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	debs, err := r.archives(ctx, cache, say)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "rootfs.new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	say("unpacking %d packages", len(debs))
	for _, deb := range debs {
		if err := command(ctx, "dpkg-deb", "-x", deb, tmp); err != nil {
			return "", err
		}
	}
	if err := r.finish(ctx, tmp, say); err != nil {
		return "", fmt.Errorf("completing the root file system: %w", err)
	}
	return dir, os.Rename(tmp, dir)
}

func (r Rootfs) key() string {
	h := sha256.New()
	fmt.Fprint(h, "v3", r.Packages, r.Compile, r.Files, r.Links, r.Generated)
	if r.Setup != "" {
		fmt.Fprint(h, r.Setup)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
}

// archives returns the packages and what they need, downloaded below cache.
func (r Rootfs) archives(ctx context.Context, cache string, say Progress) ([]string, error) {
	dir := filepath.Join(cache, "archives")
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return nil, err
	}
	debs, err := r.download(ctx, dir, say)
	if err != nil {
		return nil, fmt.Errorf("downloading packages %s: %w", strings.Join(r.Packages, " "), err)
	}
	return debs, nil
}

// download fetches the closure of the packages as a machine without any
// package would, and returns the archives.
func (r Rootfs) download(ctx context.Context, archives string, say Progress) ([]string, error) {
	say("downloading %s and what they need", strings.Join(r.Packages, ", "))
	apt := func() ([]byte, error) {
		args := []string{"-qq", "-y", "--no-install-recommends", "--download-only",
			"-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache::archives=" + archives,
			"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1", "install"}
		args = append(args, r.Packages...)
		if out, err := exec.CommandContext(ctx, "apt-get", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("apt-get install --download-only: %w: %s", err, out)
		}
		// The folder may hold archives of other root file systems.
		return exec.CommandContext(ctx, "apt-get", append([]string{"-s", "--no-install-recommends",
			"-o", "Dir::State::status=/dev/null", "install"}, r.Packages...)...).Output()
	}
	plan, err := apt()
	if err != nil {
		say("fetching package lists")
		if err := command(ctx, "apt-get", "-qq", "update"); err != nil {
			return nil, err
		}
		if plan, err = apt(); err != nil {
			return nil, err
		}
	}
	return archivesOf(archives, string(plan))
}

// archivesOf returns the archives of the packages that apt-get -s lists in
// lines like "Inst name (version Debian:12.1/stable [amd64])".
func archivesOf(dir, plan string) ([]string, error) {
	var out []string
	for line := range strings.Lines(plan) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		name, _, _ := strings.Cut(f[1], ":")
		version := strings.ReplaceAll(strings.TrimPrefix(f[2], "("), ":", "%3a")
		found, err := filepath.Glob(filepath.Join(dir, name+"_"+version+"_*.deb"))
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("package %s %s is not among the downloaded archives", name, version)
		}
		out = append(out, found[0])
	}
	if len(out) == 0 {
		return nil, errors.New("apt-get lists no packages")
	}
	return out, nil
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
