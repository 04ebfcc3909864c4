package zfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
)

// Options say how a ZFile is written; the zero value means LZ4, blocks of
// 4 KiB with checksums, final values only in the trailer, as many workers as
// there are processors.
type Options struct {
	// Algorithm compresses the blocks.
	Algorithm Algorithm

	// BlockSize is the uncompressed length of a block: a power of two from
	// 512 to 65536. Overlaybd's reader can't read blocks that are stored in
	// more than 64 KiB, nor small blocks that don't compress; data that
	// would lead there is an error, and is impossible from 4 to 32 KiB.
	BlockSize int

	// NoChecksums leaves out the checksum after each block.
	NoChecksums bool

	// FinalHeader overwrites the header at the end, which saves readers the
	// request for the trailer. The destination must be an io.WriterAt whose
	// offset 0 is where the ZFile starts.
	FinalHeader bool

	// Workers is how many blocks are compressed at once. The result does
	// not depend on it.
	Workers int
}

const minBlockSize = 512

// Validate reports values that a Writer does not take.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// withDefaults returns o complete, or an error if it can't be.
func (o Options) withDefaults() (Options, error) {
	if o.Algorithm == 0 {
		o.Algorithm = LZ4
	}
	if o.BlockSize == 0 {
		o.BlockSize = 4096
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	switch {
	case o.Algorithm != LZ4 && o.Algorithm != ZSTD:
		return o, fmt.Errorf("unknown compression %v", o.Algorithm)
	case o.BlockSize < minBlockSize || o.BlockSize > maxBlockSize || bits.OnesCount(uint(o.BlockSize)) != 1:
		return o, fmt.Errorf("block size %d is not a power of two from %d to %d", o.BlockSize, minBlockSize, maxBlockSize)
	case o.Workers < 0:
		return o, fmt.Errorf("%d workers", o.Workers)
	}
	return o, nil
}

// Writer compresses what is written to it into a ZFile. It works in the calls
// to Write and Close and is not safe for parallel use.
type Writer struct {
	w       io.Writer
	at      io.WriterAt // nil: the header stays provisional
	opts    Options
	workers []*worker
	outs    []output // one a worker

	batch   []byte // uncompressed bytes that wait for a full batch
	input   int64  // uncompressed bytes so far, without batch
	written int64  // bytes of the ZFile so far
	lengths []byte // the jump table so far
	group   int    // stored bytes of the current group, see checkGroup
	err     error  // of the first call that failed
	closed  bool
}

// NewWriter starts a ZFile on w.
func NewWriter(w io.Writer, opts Options) (*Writer, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("writing zfile: %w", err)
	}
	z := &Writer{w: w, opts: opts}
	if opts.FinalHeader {
		var ok bool
		if z.at, ok = w.(io.WriterAt); !ok {
			return nil, fmt.Errorf("writing zfile: %T can't overwrite the header", w)
		}
	}
	if z.workers, err = newWorkers(opts); err != nil {
		return nil, fmt.Errorf("writing zfile: %w", err)
	}
	z.outs = make([]output, opts.Workers)
	h := z.header(flagsFirst)
	h.indexOffset, h.blocks, h.originalSize = 0, 0, 0
	if err := z.write(h.encode()); err != nil {
		return nil, fmt.Errorf("writing zfile header: %w", err)
	}
	return z, nil
}

// header returns the header for what was written so far.
func (z *Writer) header(flags uint64) *header {
	return &header{
		flags:        flags,
		indexOffset:  uint64(z.written),
		blocks:       uint64(len(z.lengths) / jumpEntrySize),
		originalSize: uint64(z.input),
		blockSize:    uint32(z.opts.BlockSize),
		algorithm:    z.opts.Algorithm,
		verify:       !z.opts.NoChecksums,
	}
}

// Size returns how many bytes were written to the destination so far.
func (z *Writer) Size() int64 { return z.written }

// Write implements io.Writer.
func (z *Writer) Write(p []byte) (int, error) {
	if z.closed {
		return 0, errors.New("writing zfile: writer is closed")
	}
	if z.batch == nil {
		z.batch = make([]byte, 0, z.opts.Workers*batchSize)
	}
	n := len(p)
	for len(p) > 0 && z.err == nil {
		k := copy(z.batch[len(z.batch):cap(z.batch)], p)
		z.batch, p = z.batch[:len(z.batch)+k], p[k:]
		if len(z.batch) == cap(z.batch) {
			z.err = z.flush()
		}
	}
	return n - len(p), z.err
}

// Close writes the rest, the jump table and the trailer. It does not close
// the destination.
func (z *Writer) Close() error {
	if z.closed {
		return z.err
	}
	z.closed = true
	if z.err == nil {
		z.err = z.finish()
	}
	return z.err
}

func (z *Writer) finish() error {
	if err := z.flush(); err != nil {
		return err
	}
	trailer := z.header(flagsTrailer)
	trailer.indexCRC = rawCRC(0, z.lengths)
	if err := z.write(append(z.lengths, trailer.encode()...)); err != nil {
		return fmt.Errorf("writing zfile trailer: %w", err)
	}
	if z.at == nil {
		return nil
	}
	trailer.flags = flagsFinal
	if _, err := z.at.WriteAt(trailer.encode(), 0); err != nil {
		return fmt.Errorf("overwriting zfile header: %w", err)
	}
	return nil
}

func (z *Writer) write(p []byte) error {
	n, err := z.w.Write(p)
	z.written += int64(n)
	return err
}

// flush compresses and writes the batch.
func (z *Writer) flush() error {
	for _, o := range compressAll(z.workers, z.outs, z.batch) {
		if err := z.put(&o); err != nil {
			return err
		}
	}
	z.input += int64(len(z.batch))
	z.batch = z.batch[:0]
	return nil
}

// put writes what became of a stretch.
func (z *Writer) put(o *output) error {
	if o.err != nil {
		return fmt.Errorf("compressing zfile block: %w", o.err)
	}
	for _, n := range o.lengths {
		if err := z.addLength(n); err != nil {
			return err
		}
	}
	if err := z.write(o.stored); err != nil {
		return fmt.Errorf("writing zfile blocks: %w", err)
	}
	return nil
}

// addLength adds a block to the jump table, if overlaybd's reader can read it:
// that keeps sums of stored lengths within groups of 65536/BlockSize blocks in
// 16 bits, and blocks in buffers of 64 KiB.
func (z *Writer) addLength(n int) error {
	const limit = 65535
	block := len(z.lengths) / jumpEntrySize
	size := maxBlockSize / z.opts.BlockSize
	if block%size == 0 {
		z.group = 0
	}
	if n > maxBlockSize || z.group >= limit {
		return fmt.Errorf("writing zfile: block %d doesn't compress enough for the format with blocks of %d bytes; use 4096 to 32768", block, z.opts.BlockSize)
	}
	z.group += n
	z.lengths = binary.LittleEndian.AppendUint32(z.lengths, uint32(n))
	return nil
}

// Compress writes all of r as a ZFile to w and returns its length in bytes.
func Compress(w io.Writer, r io.Reader, opts Options) (int64, error) {
	z, err := NewWriter(w, opts)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(z, r); err != nil {
		return z.Size(), fmt.Errorf("compressing zfile: %w", err)
	}
	err = z.Close()
	return z.Size(), err
}
