package blob

import (
	"context"
)

// Section returns the bytes [off, off+size) of r, which must lie within it. It
// has the name and the optional abilities of r.
func Section(r ReaderAt, off, size int64) ReaderAt {
	return &section{r: r, off: off, size: size}
}

type section struct {
	r         ReaderAt
	off, size int64
}

// Size implements ReaderAt.
func (s *section) Size() int64 { return s.size }

// ReadAt implements ReaderAt.
func (s *section) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	p, end := Clip(s, p, off)
	if len(p) == 0 {
		return 0, end
	}
	n, err := s.r.ReadAt(ctx, p, s.off+off)
	if n == len(p) {
		return n, end
	}
	return n, err
}

// Present implements Presence.
func (s *section) Present(off, n int64) bool { return Present(s.r, s.off+off, n) }

// Discard implements Discarder.
func (s *section) Discard(off, n int64) { Discard(s.r, s.off+off, n) }

// Reject implements Rejecter.
func (s *section) Reject(origin string) { Reject(s.r, origin) }

// String names the blob below in errors.
func (s *section) String() string { return Name(s.r) }
