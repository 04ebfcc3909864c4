package tarblob

import (
	"context"
	"fmt"

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

// Payload returns the bytes of r that at names, as Locate found them.
func Payload(r blob.ReaderAt, at Range) blob.ReaderAt {
	return blob.Section(r, at.Offset, at.Size)
}
