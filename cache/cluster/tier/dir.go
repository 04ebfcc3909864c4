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

	// What is made has these modes without what the umask takes away, but at least
	// the shared ones: all replicas are to read it, whatever their users and umasks.
	folderMode   = 0o775
	fileMode     = 0o664
	sharedFolder = 0o755
	sharedFile   = 0o644

	// calls is how many calls of the file system may be under way, or hang.
	calls = 64
)

// Dir is a Store in a directory, which may be on NFS: a file is written in a folder of
// its own there, synced, linked to its name, which fails if that is there,
// and the folders are synced. Nothing is kept open between calls, and no link is
// followed out of the directory. Names are opened folder by folder, at which an NFS
// client asks its server: what another replica has put is seen.
//
// Files and folders can be read by all users, so that replicas may have different ones:
// who else may is up to the mode of the directory itself. Replicas that are to write,
// and sweep, as different users need one group for the directory, its setgid bit and
// the umask 002.
//
// Open, List, Remove and Tidy end with their context even where the file system hangs, as
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

// Read implements io.Reader.
func (s section) Read(p []byte) (int, error) {
	n, err := s.SectionReader.Read(p)
	if err != nil {
		err = errorOfOne(err) // NFS may allow opening, and not reading
	}
	return n, err
}

func (s section) Close() error { return s.file.Close() }

// Open implements Store.
func (s *Dir) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	file, err := await(ctx, s, func() (sized, error) { return s.open(name) }, func(f sized) { f.Close() })
	if err != nil {
		return nil, 0, err
	}
	return section{io.NewSectionReader(file, off, n), file.File}, file.size, nil
}

// sized is a file and how large it was when it was opened.
type sized struct {
	*os.File
	size int64
}

func (s *Dir) open(name string) (sized, error) {
	root, err := s.root()
	if err != nil {
		return sized{}, err
	}
	defer root.Close()
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return sized{}, errorOfOne(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("opening %s: it is no file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		file.Close()
		return sized{}, err
	}
	return sized{file, info.Size()}, nil
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

// Tidy implements Tidier. Files that are being written are in one folder, whatever
// their names will be: what is left of others it removes too.
func (s *Dir) Tidy(ctx context.Context, _ string, before time.Time, alive func()) (Removed, error) {
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
			if ctx.Err() != nil {
				return removed, errors.Join(err, context.Cause(ctx))
			}
			alive()
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
	if err := makeFolder(root, newFolder); err != nil {
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
	if info, err := file.Stat(); err == nil && info.Mode()&sharedFile != sharedFile {
		_ = file.Chmod(info.Mode() | sharedFile) // where there are no modes all are the same
	}
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
	if n, err := r.Read(buf[:1]); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%d bytes and more: %w", size, err)
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// makeFolders makes a folder and those that it is in, where they are not there.
func makeFolders(root *os.Root, name string) error {
	if parent := path.Dir(name); parent != "." {
		if err := makeFolders(root, parent); err != nil {
			return err
		}
	}
	return makeFolder(root, name)
}

func makeFolder(root *os.Root, name string) error {
	err := root.Mkdir(name, folderMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info, err := root.Lstat(name); err == nil && info.Mode()&sharedFolder != sharedFolder {
		_ = root.Chmod(name, info.Mode()|sharedFolder) // as that of files
	}
	return nil
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
			if err := makeFolders(root, path.Dir(name)); err != nil {
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
