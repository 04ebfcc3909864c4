package destination

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archive is an OCI archive as a Destination: a layout in a temporary directory
// beside it that is packed at the end.
type Archive struct {
	*Layout
	file string
}

// NewArchive returns the destination tag in a new archive, which appears when
// it is complete. It replaces an existing file only if force is set.
func NewArchive(file, tag string, force bool) (*Archive, error) {
	if _, err := os.Lstat(file); err == nil && !force {
		return nil, fmt.Errorf("%s exists already: name another file, or replace it with --force", file)
	}
	// Walking a directory yields cleaned names, and the working directory may
	// change before they are compared.
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), "."+filepath.Base(file)+".")
	if err != nil {
		return nil, err
	}
	l, err := NewLayout(dir, tag)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	l.durable = false // the archive is
	return &Archive{l, file}, nil
}

// Tag implements Destination: it makes the archive.
func (a *Archive) Tag(ctx context.Context, desc ocispec.Descriptor, text []byte) error {
	if err := a.Layout.Tag(ctx, desc, text); err != nil {
		return err
	}
	if err := a.pack(ctx); err != nil {
		return fmt.Errorf("writing %s: %w", a.file, err)
	}
	return nil
}

// pack writes the archive to a temporary file and gives it its name.
func (a *Archive) pack(ctx context.Context) error {
	f, err := os.CreateTemp(a.dir, "archive")
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewWriter(f)
	err = filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == a.dir || path == f.Name() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return a.member(t, path, d)
	})
	err = errors.Join(err, t.Close(), f.Chmod(0o644), f.Sync())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), a.file)
}

// member packs a file of the layout and removes it, so that there is room for
// the archive. Names come sorted, and nothing of this machine goes in.
func (a *Archive) member(t *tar.Writer, path string, d fs.DirEntry) error {
	name, err := filepath.Rel(a.dir, path)
	if err != nil {
		return err
	}
	name = filepath.ToSlash(name)
	if d.IsDir() {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: st.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(t, f); err != nil {
		return err
	}
	return os.Remove(path)
}

// Close implements Destination: it removes the temporary directory.
func (a *Archive) Close() error {
	return errors.Join(a.Layout.Close(), os.RemoveAll(a.dir))
}
