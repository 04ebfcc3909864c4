package reference

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/loopdev"
	"github.com/reprise-containers/reprise/integration/sandbox"
)

// Files returns the paths, from "/", of the regular files of which the command
// reads something, in the order of names: what somebody would put into a file
// list who knows the program well.
func (r Run) Files(ctx context.Context, s *sandbox.Sandbox, c *sandbox.Containerd) (files []string, err error) {
	dir, err := r.folder(s)
	if err != nil {
		return nil, err
	}
	dev, err := loopdev.Attach(r.Disk, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dev.Detach()) }()
	if err := mount(dev.Path, dir, r.FSType); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount(dir)) }()
	if _, err := r.start(ctx, dir, c); err != nil {
		return nil, err
	}
	return inPageCache(filepath.Join(dir, "lower"))
}

// inPageCache returns the files below root of which the kernel holds pages.
func inPageCache(root string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var pages unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &pages, 0); err != nil {
			return os.NewSyscallError("cachestat", err)
		}
		if pages.Cache > 0 {
			found = append(found, strings.TrimPrefix(path, root))
		}
		return nil
	})
	return found, err
}
