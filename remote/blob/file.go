package blob

import (
	"context"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is a Blob in a local file. It owns the file until Close.
type File struct {
	f    *os.File
	desc ocispec.Descriptor
}

// OpenFile opens the regular file path as a Blob. Only the size of its
// descriptor is filled in: computing a digest would read the whole file.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f: f, desc: ocispec.Descriptor{Size: st.Size()}}, nil
}

// Size implements ReaderAt.
func (f *File) Size() int64 { return f.desc.Size }

// ReadAt implements ReaderAt.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

// Descriptor implements Blob.
func (f *File) Descriptor() ocispec.Descriptor { return f.desc }

// Present implements Presence: all of a local file is local.
func (f *File) Present(off, n int64) bool { return true }

// Close closes the file; reads after it fail.
func (f *File) Close() error { return f.f.Close() }
