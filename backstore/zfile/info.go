package zfile

import (
	"bytes"
	"context"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
)

// Final reports whether head, the start of a ZFile, is a header with the final
// values ("header form"). Without them they are in the trailer only.
func Final(head []byte) bool {
	if len(head) < HeaderSize {
		return false
	}
	h, err := decodeHeader(head[:HeaderSize])
	return err == nil && h.has(flagFinal)
}

// BlockExtent returns where block i is stored in the compressed blob, in
// bytes, with its checksum.
func (z *Reader) BlockExtent(i int64) (start, length int64) {
	start = z.table.offset(i)
	return start, z.table.offset(i+1) - start
}

// CheckBlock checks and decodes stored, the bytes of block i that BlockExtent
// names. room is where it decodes to; it must have BlockSize bytes. Parallel
// calls are allowed.
func (z *Reader) CheckBlock(i int64, stored, room []byte) error {
	return z.decode(room[:z.blockLen(i)], i, 0, stored)
}

// CheckTrailer checks the trailer of a ZFile in header form, which reading it
// never needs: that it is there and says the same as the header.
func CheckTrailer(ctx context.Context, r blob.ReaderAt) error {
	var head, tail [HeaderSize]byte
	if err := blob.ReadFull(ctx, r, head[:], 0); err != nil {
		return fmt.Errorf("reading header: %w", err)
	}
	if err := blob.ReadFull(ctx, r, tail[:], max(r.Size()-HeaderSize, 0)); err != nil {
		return fmt.Errorf("reading trailer: %w", err)
	}
	h, err := decodeHeader(head[:])
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	t, err := decodeHeader(tail[:])
	if err != nil {
		return fmt.Errorf("trailer at offset %d: %w", r.Size()-HeaderSize, err)
	}
	h.flags, t.flags = 0, 0
	if !bytes.Equal(h.encode(), t.encode()) {
		return fmt.Errorf("trailer at offset %d: values differ from those of the header", r.Size()-HeaderSize)
	}
	return nil
}
