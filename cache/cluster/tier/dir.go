package tier

import (
	"context"
	"errors"
	"io"
	"time"
)

// Dir is a Store in a directory, which may be on NFS.
type Dir struct{ path string }

// NewDir returns the Store in a directory, which need not be there now.
func NewDir(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("shared tier without a directory")
	}
	return &Dir{path: path}, nil
}

// Open implements Store.
func (s *Dir) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	return nil, 0, ErrAway
}

// Create implements Store.
func (s *Dir) Create(ctx context.Context, name string, r io.Reader, size int64) error { return ErrAway }

// List implements Store.
func (s *Dir) List(ctx context.Context, folder string, f func(Entry) error) error { return ErrAway }

// Remove implements Store.
func (s *Dir) Remove(ctx context.Context, name string) error { return ErrAway }

// Tidy implements Tidier.
func (s *Dir) Tidy(ctx context.Context, before time.Time) (Removed, error) { return Removed{}, ErrAway }
