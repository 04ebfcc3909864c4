package tier

import (
	"context"
	"io"
	"time"
)

// Store keeps objects by name. Names are folders and a last part, with slashes
// between. Methods may be called concurrently.
type Store interface {
	// Open reads n bytes from off of an object and tells the size of the whole
	// object. The reader ends early where the object does. The error is
	// fs.ErrNotExist if there is no such object.
	Open(ctx context.Context, name string, off, n int64) (r io.ReadCloser, size int64, err error)
	// Create stores the size bytes of r. The object appears whole and durable or
	// not at all; the error is fs.ErrExist if there is one of the name already,
	// and that of r if r has one.
	Create(ctx context.Context, name string, r io.Reader, size int64) error
	// List calls f with each object below a folder, which ends with a slash, in no
	// order; it ends at the first error of f, which it returns. A folder that is
	// not there has no objects.
	List(ctx context.Context, folder string, f func(Entry) error) error
	// Remove removes an object. It is no error if there is none.
	Remove(ctx context.Context, name string) error
}

// Entry is an object as a Store lists it.
type Entry struct {
	Name    string
	Size    int64     // in bytes
	ModTime time.Time // by the store's clock
}

// Tidier is a Store where a Create that was killed leaves something.
type Tidier interface {
	// Tidy removes what is left of Create from before a time, and tells how many
	// and how large they were.
	Tidy(ctx context.Context, before time.Time) (Removed, error)
}
