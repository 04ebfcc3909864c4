package zfile

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

// maxRereads is how often a damaged block is read again.
const maxRereads = 2

// Damage is the error of a read that met a block whose checksum or encoding is
// wrong, and still was after what lies below had been asked to forget it.
type Damage struct {
	Blob   string // name of the compressed blob
	Block  int64  // number of the block
	Offset int64  // of the block in the compressed blob, in bytes
	Length int64  // of the block in the compressed blob, in bytes
	Err    error  // the rule it breaks
}

// Error implements error.
func (d *Damage) Error() string {
	return fmt.Sprintf("zfile %s: block %d (%d bytes at offset %d) is damaged: %v", d.Blob, d.Block, d.Length, d.Offset, d.Err)
}

// Unwrap returns the rule that the block breaks.
func (d *Damage) Unwrap() error { return d.Err }

// checkStored checks the checksum at the end of a stored block and returns
// what lies before it.
func checkStored(stored []byte) ([]byte, error) {
	data := stored[:len(stored)-checksumSize]
	want := binary.LittleEndian.Uint32(stored[len(data):])
	if got := rawCRC(blockSeed, data); got != want {
		return nil, fmt.Errorf("checksum is %#08x, block says %#08x", got, want)
	}
	return data, nil
}

// readAgain is decode for block i after it was found damaged for the given
// reason: a cache below may hold a bad copy of good bytes.
func (z *Reader) readAgain(ctx context.Context, p []byte, i int64, at int, reason error) error {
	start := z.table.offset(i)
	buf := scratch.Borrow(int(z.table.offset(i+1) - start))
	defer scratch.Return(buf)
	for range maxRereads {
		blob.Discard(z.r, start, int64(len(*buf)))
		if err := blob.ReadFull(ctx, z.r, *buf, start); err != nil {
			return fmt.Errorf("reading block %d of zfile %s again (%w): %w", i, z, reason, err)
		}
		if reason = z.decode(p, i, at, *buf); reason == nil {
			return nil
		}
	}
	blob.Discard(z.r, start, int64(len(*buf))) // nothing damaged stays in a cache
	return &Damage{Blob: blob.Name(z.r), Block: i, Offset: start, Length: int64(len(*buf)), Err: reason}
}
