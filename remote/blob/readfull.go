package blob

import (
	"context"
	"fmt"
	"io"
)

// ReadFull fills p from offset off (bytes) of r. A source that ends before is
// io.ErrUnexpectedEOF; the error tells how much was to be read where.
func ReadFull(ctx context.Context, r ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(ctx, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF { //nolint:errorlint // one that wraps it says more
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at offset %d: %w", len(p), off, err)
}
