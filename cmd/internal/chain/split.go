package chain

import (
	"context"

	"github.com/reprise-containers/reprise/remote/blob"
)

// split is a blob of which the bytes before at are read from one and the others
// from another blob. Both are wrapped around the same one, so it does not
// matter from which of them the rest of its methods come.
type split struct {
	blob.Blob           // for the bytes before at
	rest      blob.Blob // for the others
	at        int64     // bytes
}

// ReadAt implements blob.ReaderAt.
func (s *split) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case off >= s.at:
		return s.rest.ReadAt(ctx, p, off)
	case off+int64(len(p)) <= s.at:
		return s.Blob.ReadAt(ctx, p, off)
	}
	first := int(s.at - off)
	if n, err := s.Blob.ReadAt(ctx, p[:first], off); n < first {
		return n, err
	}
	n, err := s.rest.ReadAt(ctx, p[first:], s.at)
	return first + n, err
}

// Present implements blob.Presence.
func (s *split) Present(off, n int64) bool {
	before := min(n, max(s.at-off, 0))
	return (before == 0 || blob.Present(s.Blob, off, before)) &&
		(before == n && n > 0 || blob.Present(s.rest, off+before, n-before))
}

// Discard implements blob.Discarder.
func (s *split) Discard(off, n int64) {
	before := min(n, max(s.at-off, 0))
	if before > 0 {
		blob.Discard(s.Blob, off, before)
	}
	if n > before {
		blob.Discard(s.rest, off+before, n-before)
	}
}

// Reject implements blob.Rejecter.
func (s *split) Reject(origin string) { blob.Reject(s.Blob, origin) }
