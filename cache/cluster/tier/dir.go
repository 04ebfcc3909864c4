package tier

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// newFolder has the files that are being written.
	newFolder = ".new"
	// newSuffix is at the end of their names, which begin with newDigits hex digits.
	newSuffix = ".tmp"
	newDigits = 32

	// What replicas of other users share is up to the umask and the folder's group.
	folderMode = 0o770
	fileMode   = 0o660

	// calls is how many calls of the file system may be under way, or hang.
	calls = 64
)

// Dir is a Store in a directory, which may be on NFS: a file is written in a folder of
// its own there, synced, linked to its name, which fails if that is there,
// and the folders are synced. Nothing is kept open between calls, and no link is
// followed out of the directory. Names are opened folder by folder, at which an NFS
// client asks its server: what another replica has put is seen.
//
// Open, List and Remove end with their context even where the file system hangs, as
// that of a server that is away does; reading and Create do not: NFS should be mounted
// "soft". A directory that is not there is never made: it would be where a mount is
// missing.
type Dir struct {
	path  string
	slots chan struct{} // of calls
}

// NewDir returns the Store in a directory, which need not be there now.
func NewDir(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("shared tier without a directory")
	}
	return &Dir{path: path, slots: make(chan struct{}, calls)}, nil
}

// root opens the directory. That it is not there is not fs.ErrNotExist, which is said
// of objects.
func (s *Dir) root() (*os.Root, error) {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return nil, fmt.Errorf("opening the shared tier's directory: %s", err) //nolint:errorlint // see above
	}
	return root, nil
}

// await calls f, but waits for it no longer than ctx lasts; then drop gets what f
// returns without an error.
func await[T any](ctx context.Context, s *Dir, f func() (T, error), drop func(T)) (T, error) {
	var none T
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	go func() {
		defer func() { <-s.slots }()
		value, err := f()
		select {
		case done <- result{value, err}:
		case <-ctx.Done():
			if err == nil {
				drop(value)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// section is a part of a file.
type section struct {
	*io.SectionReader
	file *os.File
}

func (s section) Close() error { return s.file.Close() }

// Open implements Store.
func (s *Dir) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	file, err := await(ctx, s, func() (*os.File, error) {
		root, err := s.root()
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	}, func(f *os.File) { f.Close() })
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("opening %s: it is no file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return section{io.NewSectionReader(file, off, n), file}, info.Size(), nil
}

// List implements Store.
func (s *Dir) List(ctx context.Context, folder string, f func(Entry) error) error {
	entries, err := await(ctx, s, func() ([]Entry, error) { return s.list(ctx, strings.TrimSuffix(folder, "/")) }, func([]Entry) {})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *Dir) list(ctx context.Context, folder string) (entries []Entry, err error) {
	root, err := s.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if folder == "" {
		folder = "."
	}
	err = fs.WalkDir(root.FS(), folder, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nobody put it there, or it was removed just now
		}
		if err != nil {
			return err
		}
		if d.IsDir() && name == newFolder {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err == nil {
			entries = append(entries, Entry{Name: name, Size: info.Size(), ModTime: info.ModTime()})
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	return entries, err
}

// Remove implements Store. The folder goes with its last object.
func (s *Dir) Remove(ctx context.Context, name string) error {
	_, err := await(ctx, s, func() (struct{}, error) {
		root, err := s.root()
		if err != nil {
			return struct{}{}, err
		}
		defer root.Close()
		err = root.Remove(name)
		if err == nil {
			_ = root.Remove(path.Dir(name)) // fails unless it is empty
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return struct{}{}, err
	}, func(struct{}) {})
	return err
}

// Tidy implements Tidier.
func (s *Dir) Tidy(ctx context.Context, before time.Time) (Removed, error) {
	return await(ctx, s, func() (removed Removed, err error) {
		root, err := s.root()
		if err != nil {
			return removed, err
		}
		defer root.Close()
		entries, err := fs.ReadDir(root.FS(), newFolder)
		if errors.Is(err, fs.ErrNotExist) {
			return removed, nil
		}
		for _, e := range entries {
			info, infoErr := e.Info()
			if infoErr != nil || !isNew(e.Name()) || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
				continue
			}
			if removeErr := root.Remove(path.Join(newFolder, e.Name())); removeErr != nil {
				err = errors.Join(err, removeErr)
				continue
			}
			removed.Count++
			removed.Bytes += info.Size()
		}
		return removed, err
	}, func(Removed) {})
}

func newName() string {
	var b [newDigits / 2]byte
	_, _ = rand.Read(b[:]) // does not fail
	return hex.EncodeToString(b[:]) + newSuffix
}

func isNew(name string) bool {
	digits, ok := strings.CutSuffix(name, newSuffix)
	_, err := hex.DecodeString(digits)
	return ok && err == nil && len(digits) == newDigits
}

// Create implements Store.
func (s *Dir) Create(ctx context.Context, name string, r io.Reader, size int64) error {
	root, err := s.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Mkdir(newFolder, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return creating(err)
	}
	temp := path.Join(newFolder, newName())
	if err := write(ctx, root, temp, r, size); err != nil {
		_ = root.Remove(temp) // what is left is tidied up later
		return creating(err)
	}
	err = publish(root, temp, name)
	if removeErr := root.Remove(temp); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	if err != nil {
		return creating(err)
	}
	for folder := path.Dir(name); ; folder = path.Dir(folder) {
		if err := syncFolder(root, folder); err != nil {
			return creating(err)
		}
		if folder == "." {
			return nil
		}
	}
}

// creating returns err so that it is fs.ErrExist only if it was, and never
// fs.ErrNotExist, which is said of objects.
func creating(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("creating an object: %s", err) //nolint:errorlint // see above
	}
	return err
}

// write writes a new file, which is durable then.
func write(ctx context.Context, root *os.Root, name string, r io.Reader, size int64) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, 16*frameSize)
	for left := size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		if _, err := file.Write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// publish gives a file its name, unless there is one already.
func publish(root *os.Root, temp, name string) error {
	for try := 0; ; try++ {
		err := root.Link(temp, name)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
			err = rename(root, temp, name) // no hard links here
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && try < 3: // the folder went with its last object
			if err := root.MkdirAll(path.Dir(name), folderMode); err != nil {
				return err
			}
		case errors.Is(err, fs.ErrExist) && same(root, temp, name):
			return nil // NFS asked twice, the first answer was lost
		default:
			return err
		}
	}
}

func same(root *os.Root, a, b string) bool {
	one, err := root.Lstat(a)
	if err != nil {
		return false
	}
	two, err := root.Lstat(b)
	return err == nil && os.SameFile(one, two)
}

// rename is for file systems without hard links.
func rename(root *os.Root, temp, name string) error {
	from, err := root.Open(path.Dir(temp))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer to.Close()
	err = unix.Renameat2(int(from.Fd()), path.Base(temp), int(to.Fd()), path.Base(name), unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: temp, New: name, Err: err}
	}
	return nil
}

func syncFolder(root *os.Root, name string) error {
	folder, err := root.Open(name)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
