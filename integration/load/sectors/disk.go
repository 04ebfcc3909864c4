package sectors

import "context"

// Disk is what is loaded. Offsets and lengths are multiples of Size. Calls are
// made in parallel, of a worker one at a time.
type Disk interface {
	Reader
	// WriteAt writes all of p, which is aligned for direct I/O, and does not
	// keep it.
	WriteAt(p []byte, off int64) error
	// Discard makes n bytes from off on read as zeros and may free them.
	Discard(off, n int64) error
	// Zero makes n bytes from off on read as zeros.
	Zero(off, n int64) error
	// Flush makes durable what was done before.
	Flush() error
}

// Reader is what a check reads.
type Reader interface {
	// ReadAt fills p, which is aligned for direct I/O.
	ReadAt(p []byte, off int64) error
}

// ReaderFunc makes a Reader of a method of another form.
type ReaderFunc func(p []byte, off int64) error

// ReadAt calls f.
func (f ReaderFunc) ReadAt(p []byte, off int64) error { return f(p, off) }

// WithContext makes a Reader of what a device or layer has.
func WithContext(ctx context.Context, r interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}) Reader {
	return ReaderFunc(func(p []byte, off int64) error {
		_, err := r.ReadAt(ctx, p, off)
		return err
	})
}
