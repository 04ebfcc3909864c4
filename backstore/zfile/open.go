package zfile

import (
	"context"
	"errors"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Open opens the ZFile r. It reads the header, the trailer unless the header
// has the final values, and the jump table, each with one ReadAt (tables of
// more than 262144 blocks in several). The error wraps ErrFormat if r is not
// a ZFile at all.
func Open(ctx context.Context, r blob.ReaderAt) (*Reader, error) {
	z, err := open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("opening zfile %s: %w", blob.Name(r), err)
	}
	return z, nil
}

func open(ctx context.Context, r blob.ReaderAt) (*Reader, error) {
	if r.Size() < HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, r.Size())
	}
	h, limit, err := readHeader(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := h.check(limit); err != nil {
		return nil, err
	}
	table, err := readJumpTable(ctx, r, h)
	if err != nil {
		return nil, err
	}
	return &Reader{
		r:         r,
		table:     table,
		size:      int64(h.originalSize),
		blockSize: int(h.blockSize),
		algorithm: h.algorithm,
		verify:    h.verify,
	}, nil
}

// readHeader returns the block with the final values and the offset where a
// jump table must have ended: the trailer if that was used, else the end of
// the blob, because a file with a final header is whole without its trailer.
func readHeader(ctx context.Context, r blob.ReaderAt) (*header, int64, error) {
	var b [HeaderSize]byte
	if err := blob.ReadFull(ctx, r, b[:], 0); err != nil {
		return nil, 0, fmt.Errorf("reading header: %w", err)
	}
	h, err := decodeHeader(b[:])
	if errors.Is(err, errMagic) {
		return nil, 0, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	if !h.has(flagHeader) || !h.has(flagData) {
		return nil, 0, fmt.Errorf("header: flags %#x are not those of a data file's header", h.flags)
	}
	if h.has(flagFinal) {
		return h, r.Size(), nil
	}
	at := r.Size() - HeaderSize
	if err := blob.ReadFull(ctx, r, b[:], at); err != nil {
		return nil, 0, fmt.Errorf("reading trailer: %w", err)
	}
	if h, err = decodeHeader(b[:]); err != nil {
		return nil, 0, fmt.Errorf("trailer at offset %d: %w", at, err)
	}
	if h.has(flagHeader) || !h.has(flagData) || !h.has(flagSealed) {
		return nil, 0, fmt.Errorf("trailer at offset %d: flags %#x are not those of a sealed data file's trailer", at, h.flags)
	}
	return h, at, nil
}
