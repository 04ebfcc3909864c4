package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/reprise-containers/reprise/integration/lockfile"
)

// planned holds the archives that lists of packages come to, by folder and list.
// apt-get takes seconds of processor time for each answer, and many images have
// the same packages.
var planned struct {
	sync.Mutex
	archives map[string][]string
}

// archives returns the packages and what they need, downloaded below cache.
func (r Rootfs) archives(ctx context.Context, cache string, say Progress) ([]string, error) {
	dir := filepath.Join(cache, "archives")
	planned.Lock()
	defer planned.Unlock()
	key := fmt.Sprintf("%s %q", dir, r.Packages)
	if debs, found := planned.archives[key]; found {
		return debs, nil
	}
	debs, err := r.fetch(ctx, dir, say)
	if err != nil {
		return nil, fmt.Errorf("downloading packages %s: %w", strings.Join(r.Packages, " "), err)
	}
	if planned.archives == nil {
		planned.archives = map[string][]string{}
	}
	planned.archives[key] = debs
	return debs, nil
}

// fetch downloads what is missing of the packages' closure, as a machine without
// any package would, and returns the archives.
func (r Rootfs) fetch(ctx context.Context, archives string, say Progress) (debs []string, err error) {
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return nil, err
	}
	// Other programs download into the same folder.
	lock, err := lockfile.Take(filepath.Join(archives, "reprise.lock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	debs, err = r.download(ctx, archives, say)
	if err == nil || ctx.Err() != nil {
		return debs, err
	}
	say("fetching package lists")
	if err := command(ctx, "apt-get", "-qq", "update"); err != nil {
		return nil, err
	}
	return r.download(ctx, archives, say)
}

// download does what fetch does with the package lists that there are.
func (r Rootfs) download(ctx context.Context, archives string, say Progress) ([]string, error) {
	plan, err := r.apt(ctx, archives, "--simulate")
	if err != nil {
		return nil, err
	}
	if debs, err := archivesOf(archives, plan); err == nil {
		return debs, nil
	}
	say("downloading %s and what they need", strings.Join(r.Packages, ", "))
	if _, err := r.apt(ctx, archives, "--download-only"); err != nil {
		return nil, err
	}
	return archivesOf(archives, plan)
}

// apt has apt-get install the packages as far as mode says and returns what it
// prints. The cache of the package lists is one for a machine without packages.
func (r Rootfs) apt(ctx context.Context, archives, mode string) (string, error) {
	args := []string{"-qq", "-y", "--no-install-recommends", mode,
		"-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache::archives=" + archives,
		"-o", "Dir::Cache::pkgcache=" + filepath.Join(archives, "pkgcache.bin"),
		"-o", "Dir::Cache::srcpkgcache=" + filepath.Join(archives, "srcpkgcache.bin"),
		"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1", "install"}
	var complaint strings.Builder
	cmd := exec.CommandContext(ctx, "apt-get", append(args, r.Packages...)...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running apt-get install %s: %w: %s", mode, err, complaint.String())
	}
	return string(out), nil
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
