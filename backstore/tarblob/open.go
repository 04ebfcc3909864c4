package tarblob

import (
	"context"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Open returns the payload of the tar archive r, or r itself if it is not an
// archive. It reads the first HeadSize bytes of r.
func Open(ctx context.Context, r blob.ReaderAt) (blob.ReaderAt, error) {
	head := make([]byte, min(HeadSize, r.Size()))
	if err := blob.ReadFull(ctx, r, head, 0); err != nil {
		return nil, fmt.Errorf("reading the start of %s: %w", blob.Name(r), err)
	}
	at, ok, err := Locate(head, r.Size())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", blob.Name(r), err)
	}
	if !ok {
		return r, nil
	}
	return Payload(r, at), nil
}

// Payload returns the bytes of r that at names, as Locate found them. It
// passes Presence and Discarder down.
func Payload(r blob.ReaderAt, at Range) blob.ReaderAt {
	return &payload{r: r, at: at}
}

type payload struct {
	r  blob.ReaderAt
	at Range
}

// Size implements blob.ReaderAt.
func (s *payload) Size() int64 { return s.at.Size }

// ReadAt implements blob.ReaderAt.
func (s *payload) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading %s at negative offset %d", s, off)
	}
	if off >= s.at.Size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	if left := s.at.Size - off; int64(len(p)) > left {
		n, err := s.r.ReadAt(ctx, p[:left], s.at.Offset+off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return s.r.ReadAt(ctx, p, s.at.Offset+off)
}

// Present implements blob.Presence.
func (s *payload) Present(off, n int64) bool {
	return blob.Present(s.r, s.at.Offset+off, n)
}

// Discard implements blob.Discarder.
func (s *payload) Discard(off, n int64) {
	blob.Discard(s.r, s.at.Offset+off, n)
}

// String names the blob below in errors.
func (s *payload) String() string { return blob.Name(s.r) }
