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
	// fs.ErrNotExist if there is no such object, and ErrUnreadable, also of reading, if
	// there is one that can not be read by itself.
	Open(ctx context.Context, name string, off, n int64) (r io.ReadCloser, size int64, err error)
	// Create stores the size bytes of r. The object appears whole and durable or
	// not at all; the error is fs.ErrExist if there is one of the name already,
	// and that of r if r has one. It reads on to io.EOF when it has stored the bytes
	// and has only to complete an object of many, which may take up to
	// completeTimeout.
	Create(ctx context.Context, name string, r io.Reader, size int64) error
	// List calls f with each object below a folder, which ends with a slash, in no
	// order; it ends at the first error of f, which it returns. A folder that is
	// not there has no objects. The error is ErrUnreadable if some could not be
	// listed, after all others were.
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
	// Tidy removes what is left of Creates below a folder from before a time, and
	// tells how many and how large they were. It calls alive as it gets on.
	Tidy(ctx context.Context, folder string, before time.Time, alive func()) (Removed, error)
}
