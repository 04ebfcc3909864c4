package zfile

import (
	"context"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

// Reader reads the uncompressed bytes of a ZFile. It implements
// blob.ReaderAt and blob.Presence and is safe for parallel use.
type Reader struct {
	r         blob.ReaderAt
	table     *jumpTable
	size      int64
	blockSize int
	algorithm Algorithm
	verify    bool
	recent    recent
}

// maxPiece is how many compressed bytes are read at once, unless a single
// block is longer. The largest read of the kernel is 1 MiB uncompressed, so
// for it this is one read.
const maxPiece = 1 << 20

// Size returns the uncompressed length in bytes.
func (z *Reader) Size() int64 { return z.size }

// BlockSize returns the uncompressed length of a block in bytes.
func (z *Reader) BlockSize() int { return z.blockSize }

// Blocks returns the number of blocks.
func (z *Reader) Blocks() int64 { return int64(len(z.table.delta)) - 1 }

// Algorithm returns how blocks are compressed.
func (z *Reader) Algorithm() Algorithm { return z.algorithm }

// Verified reports whether every block carries a checksum.
func (z *Reader) Verified() bool { return z.verify }

// String names the blob below in errors.
func (z *Reader) String() string { return blob.Name(z.r) }

// Extent returns which bytes of the compressed blob hold the blocks that
// [off, off+n) of the uncompressed bytes touch.
func (z *Reader) Extent(off, n int64) (start, length int64) {
	off = min(max(off, 0), z.size)
	n = min(n, z.size-off)
	if n <= 0 {
		return 0, 0
	}
	bs := int64(z.blockSize)
	start = z.table.offset(off / bs)
	return start, z.table.offset((off+n-1)/bs+1) - start
}

// Present implements blob.Presence for uncompressed bytes.
func (z *Reader) Present(off, n int64) bool {
	start, length := z.Extent(off, n)
	return length == 0 || blob.Present(z.r, start, length)
}

// ReadAt implements blob.ReaderAt for uncompressed bytes. Blocks whose
// checksum or encoding is wrong are read again, see Damage.
func (z *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading zfile %s at negative offset %d", z, off)
	}
	var end error
	if int64(len(p)) > z.size-off {
		p, end = p[:max(z.size-off, 0)], io.EOF
	}
	// Decoders may write past the end of a block, up to the capacity of what
	// they get: into later blocks of p, which are decoded later, but never
	// into what the caller has behind p.
	n, err := z.read(ctx, p[:len(p):len(p)], off)
	if err == nil {
		err = end
	}
	return n, err
}

// read fills p, which does not reach past the end.
func (z *Reader) read(ctx context.Context, p []byte, off int64) (int, error) {
	bs := int64(z.blockSize)
	for done := 0; done < len(p); {
		first := (off + int64(done)) / bs
		if at := int(off + int64(done) - first*bs); at != 0 || len(p)-done < z.blockLen(first) {
			n := min(len(p)-done, z.blockLen(first)-at)
			if z.recent.read(p[done:done+n], first, at) {
				done += n
				continue
			}
		}
		n, err := z.readPiece(ctx, p[done:], off+int64(done), first)
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(p), nil
}

// readPiece reads as many blocks from the first on as a piece may have and
// decodes them to p, whose first byte is at offset off of the uncompressed
// bytes. It returns how many bytes of p it filled.
func (z *Reader) readPiece(ctx context.Context, p []byte, off, first int64) (int, error) {
	bs := int64(z.blockSize)
	last := (off + int64(len(p)) - 1) / bs
	start := z.table.offset(first)
	for last > first && z.table.offset(last+1)-start > maxPiece {
		last = first + (last-first)/2
	}
	buf := scratch.Borrow(int(z.table.offset(last+1) - start))
	defer scratch.Return(buf)
	if err := blob.ReadFull(ctx, z.r, *buf, start); err != nil {
		return 0, fmt.Errorf("reading blocks %d to %d of zfile %s: %w", first, last, z, err)
	}
	done := 0
	for i := first; i <= last; i++ {
		stored := (*buf)[z.table.offset(i)-start : z.table.offset(i+1)-start]
		at := 0
		if i == first {
			at = int(off - first*bs)
		}
		n := min(z.blockLen(i)-at, len(p)-done)
		err := z.decode(p[done:done+n], i, at, stored)
		if err != nil {
			err = z.readAgain(ctx, p[done:done+n], i, at, err)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// blockLen returns the uncompressed length of block i.
func (z *Reader) blockLen(i int64) int {
	return int(min(int64(z.blockSize), z.size-i*int64(z.blockSize)))
}

// decode checks and decodes the stored bytes of block i and writes its bytes
// from offset at on to p: in place if p takes them all.
func (z *Reader) decode(p []byte, i int64, at int, stored []byte) error {
	if z.verify {
		var err error
		if stored, err = checkStored(stored); err != nil {
			return err
		}
	}
	size := z.blockLen(i)
	if len(p) == size {
		return z.algorithm.decode(p, stored)
	}
	return z.recent.fill(p, i, size, at, func(dst []byte) error {
		return z.algorithm.decode(dst, stored)
	})
}
