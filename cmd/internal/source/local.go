package source

import (
	"context"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/remote/blob"
)

// sizedFile is a regular file.
type sizedFile struct {
	*os.File
	size int64 // bytes
}

// Size returns the length of the file when it was opened.
func (f sizedFile) Size() int64 { return f.size }

// openFile opens a regular file. It looks before it opens: opening a named pipe
// would wait for a writer.
func openFile(name string) (sizedFile, error) {
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return sizedFile{}, err
	}
	f, err := os.Open(name)
	if err != nil {
		return sizedFile{}, err
	}
	if st, err = f.Stat(); err != nil {
		f.Close()
		return sizedFile{}, err
	}
	return sizedFile{f, st.Size()}, nil
}

// section is a blob in a local file, or in a part of one.
type section struct {
	r    io.ReaderAt
	desc ocispec.Descriptor
}

// Size implements blob.ReaderAt.
func (s section) Size() int64 { return s.desc.Size }

// ReadAt implements blob.ReaderAt.
func (s section) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.ReadAt(p, off)
}

// Descriptor implements blob.Blob.
func (s section) Descriptor() ocispec.Descriptor { return s.desc }

// Present implements blob.Presence: all of a local file is local.
func (s section) Present(off, n int64) bool { return true }

// broken is a blob that cannot be read, for a reason known when it was opened.
type broken struct {
	desc ocispec.Descriptor
	err  error
}

// Size implements blob.ReaderAt.
func (b broken) Size() int64 { return b.desc.Size }

// ReadAt implements blob.ReaderAt: it fails, for good.
func (b broken) ReadAt(context.Context, []byte, int64) (int, error) {
	return 0, blob.Permanent(b.err)
}

// Descriptor implements blob.Blob.
func (b broken) Descriptor() ocispec.Descriptor { return b.desc }

// namedSection is a blob without a digest; errors call it by its path.
type namedSection struct {
	section
	name string
}

func newNamedSection(f sizedFile, name string) namedSection {
	return namedSection{section{f, ocispec.Descriptor{Size: f.size}}, name}
}

// String returns the path.
func (s namedSection) String() string { return s.name }
