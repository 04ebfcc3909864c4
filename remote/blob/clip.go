package blob

import (
	"fmt"
	"io"
)

// Clip applies the end-of-file rule of ReaderAt: it returns the part of p that
// lies within r, and the error with which a read that filled that part ends
// (nil, or io.EOF if it reached past the size). A read before the start or
// wholly past the end returns no bytes and that error.
func Clip(r ReaderAt, p []byte, off int64) ([]byte, error) {
	size := r.Size()
	switch {
	case off < 0:
		return nil, Permanent(fmt.Errorf("reading at negative offset %d", off))
	case len(p) == 0:
		return nil, nil
	case off >= size:
		return nil, io.EOF
	case int64(len(p)) > size-off:
		return p[:size-off], io.EOF
	}
	return p, nil
}

// passthrough gives a decorator the methods that do not move bytes. Whether a
// range is present, who is to forget it, and which host is to be shunned, are
// questions for what lies below.
type passthrough struct{ Blob }

// Present implements Presence.
func (d passthrough) Present(off, n int64) bool { return Present(d.Blob, off, n) }

// Discard implements Discarder.
func (d passthrough) Discard(off, n int64) { Discard(d.Blob, off, n) }

// Reject implements Rejecter.
func (d passthrough) Reject(origin string) { Reject(d.Blob, origin) }
