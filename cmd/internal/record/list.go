package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
)

// maxUnknown is how many files that are not there are named.
const maxUnknown = 10

// readFiles reads what the priority list names, as its files would be prefetched:
// whole and in the order of the list. The recording of that makes the plan.
func (r *recording) readFiles(ctx context.Context, mounts []mount.Mount) error {
	paths, err := r.cfg.list()
	if err != nil {
		return err
	}
	r.summary.Files = len(paths)
	var unknown []string
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		for _, p := range paths {
			select {
			case <-r.cfg.Stop:
				return errors.New("interrupted")
			default:
			}
			found, err := readPath(ctx, root, p)
			if err != nil {
				return err
			}
			if !found {
				unknown = append(unknown, p)
			}
		}
		// Before it is unmounted.
		return r.files.finish()
	})
	if err != nil {
		return fmt.Errorf("reading the files of the priority list: %w", err)
	}
	for i, p := range unknown {
		if i == maxUnknown {
			r.cfg.Note("and %d more", len(unknown)-i)
			break
		}
		r.cfg.Note("the image has no file %s: it stays in the list and does nothing", p)
	}
	if len(unknown) == len(paths) {
		return errors.New("the image has none of the files of the priority list")
	}
	return nil
}

// readPath reads a file of a root file system, or with a slash at its end all
// that is in a directory, without one its names. Links are followed within the root.
// It is what backstore/files takes a path to mean.
func readPath(ctx context.Context, root, path string) (found bool, err error) {
	at, err := continuity.RootPath(root, path)
	if err != nil {
		return false, fmt.Errorf("following %s: %w", path, err)
	}
	st, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !st.IsDir() && strings.HasSuffix(path, "/"):
		return false, nil
	case err != nil:
		return false, err
	case !st.IsDir():
		return true, readFile(ctx, at, st.Mode())
	case !strings.HasSuffix(path, "/"):
		_, err := os.ReadDir(at)
		return true, err
	}
	err = filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return readFile(ctx, p, d.Type())
	})
	return true, err
}

// readFile reads a regular file.
func readFile(ctx context.Context, path string, mode fs.FileMode) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !mode.IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
