package lsmt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sparse is the optional ability of a blob.ReaderAt to tell where it holds
// data; everything else reads as zeros.
type Sparse interface {
	// NextData returns the first range [start, end) of data, in bytes, that
	// ends after off, cut to start at or after off. It returns io.EOF if
	// there is none.
	NextData(off int64) (start, end int64, err error)
}

// SparseFile is a local file that knows its holes: a disk image to commit, or
// the data file of a sparse writable layer. It is a blob.ReaderAt, Sparse and
// blob.Presence, and owns the file until Close.
type SparseFile struct {
	f    *os.File
	size int64
}

// OpenFile opens the regular file path.
func OpenFile(path string) (*SparseFile, error) {
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
	return &SparseFile{f: f, size: st.Size()}, nil
}

// Size implements blob.ReaderAt: the size when it was opened.
func (s *SparseFile) Size() int64 { return s.size }

// ReadAt implements blob.ReaderAt.
func (s *SparseFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.f.ReadAt(p, off)
}

// Present implements blob.Presence: all of a local file is local.
func (s *SparseFile) Present(off, n int64) bool { return true }

// String returns the path.
func (s *SparseFile) String() string { return s.f.Name() }

// Close closes the file; reads after it fail.
func (s *SparseFile) Close() error { return s.f.Close() }

// NextData implements Sparse with lseek. The file offset it moves is not used
// by reads.
func (s *SparseFile) NextData(off int64) (start, end int64, err error) {
	if off >= s.size {
		return 0, 0, io.EOF
	}
	start, err = unix.Seek(int(s.f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, fmt.Errorf("seeking data in %s: %w", s, err)
	}
	end, err = unix.Seek(int(s.f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seeking hole in %s: %w", s, err)
	}
	if start >= s.size {
		return 0, 0, io.EOF
	}
	return start, min(end, s.size), nil
}

// NextData implements Sparse.
func (m *Image) NextData(off int64) (start, end int64, err error) {
	if off < 0 || off >= m.size {
		return 0, 0, io.EOF
	}
	x := &m.index
	i := m.index.find(uint64(off) / SectorSize)
	for i < x.len() && x.at(i).zeroed() {
		i++
	}
	if i == x.len() || int64(x.at(i).offset())*SectorSize >= m.size {
		return 0, 0, io.EOF
	}
	stop := x.at(i).end()
	start = max(int64(x.at(i).offset())*SectorSize, off)
	for i++; i < x.len() && !x.at(i).zeroed() && x.at(i).offset() == stop; i++ {
		stop = x.at(i).end()
	}
	return start, min(int64(stop)*SectorSize, m.size), nil
}
