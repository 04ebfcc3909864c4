package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// List implements Store.
func (s *Dir) List(ctx context.Context, folder string, f func(Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	entries := make(chan Entry)
	give := func(e Entry) error {
		select {
		case entries <- e:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ended := make(chan error, 1)
	go func() {
		defer func() { <-s.slots }()
		ended <- s.walk(strings.TrimSuffix(folder, "/"), give)
	}()
	for {
		select {
		case e := <-entries:
			if err := f(e); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// walk gives what is in a folder, until there is an error of give.
func (s *Dir) walk(folder string, give func(Entry) error) error {
	root, err := s.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if folder == "" {
		folder = "."
	}
	var unreadable error // the first that could not be listed
	err = fs.WalkDir(root.FS(), folder, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = giveOne(name, d, give)
		}
		err = errorOfOne(err)
		switch {
		case errors.Is(err, fs.ErrNotExist): // nobody put it there, or it was removed just now
			return nil
		case errors.Is(err, ErrUnreadable):
			unreadable = cmp.Or(unreadable, err)
			return nil
		}
		return err
	})
	return cmp.Or(err, unreadable)
}

func giveOne(name string, d fs.DirEntry, give func(Entry) error) error {
	if d.IsDir() && name == newFolder {
		return fs.SkipDir
	}
	if !d.Type().IsRegular() {
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	return give(Entry{Name: name, Size: info.Size(), ModTime: info.ModTime()})
}

// errorOfOne returns an error of the file system so that it is ErrUnreadable if it is
// of one file or folder: this user may not read it, or it is a link, which may lead out
// of the directory, or no file at all.
func errorOfOne(err error) error {
	var of *fs.PathError
	if !errors.As(err, &of) {
		return err
	}
	var number syscall.Errno
	if errors.As(of.Err, &number) {
		switch number {
		case syscall.EACCES, syscall.EPERM, syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO:
		default:
			return err
		}
	} // else os.Root has refused a link
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}
