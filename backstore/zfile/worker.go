package zfile

import (
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// batchSize is how many uncompressed bytes a worker gets at once.
const batchSize = 256 << 10

// worker compresses a stretch of blocks, one after the other.
type worker struct {
	blockSize int
	verify    bool
	compress  func(dst, src []byte) ([]byte, error) // appends to dst
}

// output is what becomes of a stretch.
type output struct {
	stored  []byte // blocks
	lengths []int  // of each
	err     error
}

func newWorkers(opts Options) ([]*worker, error) {
	workers := make([]*worker, opts.Workers)
	for i := range workers {
		compress, err := newCompressor(opts.Algorithm)
		if err != nil {
			return nil, err
		}
		workers[i] = &worker{blockSize: opts.BlockSize, verify: !opts.NoChecksums, compress: compress}
	}
	return workers, nil
}

// newCompressor returns a function for one worker that appends src, compressed,
// to dst.
func newCompressor(a Algorithm) (func(dst, src []byte) ([]byte, error), error) {
	if a == ZSTD {
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedDefault), // the level 3 that overlaybd uses
			zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true), // so that a frame tells its content size
			zstd.WithWindowSize(maxBlockSize))
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) ([]byte, error) { return e.EncodeAll(src, dst), nil }, nil
	}
	var c lz4.Compressor
	return func(dst, src []byte) ([]byte, error) {
		bound := lz4.CompressBlockBound(len(src))
		if cap(dst)-len(dst) < bound {
			dst = append(make([]byte, 0, 2*cap(dst)+bound), dst...)
		}
		// With that much room the compressor never gives up on a block.
		n, err := c.CompressBlock(src, dst[len(dst):len(dst)+bound])
		return dst[:len(dst)+n], err
	}, nil
}

// compressAll lets the workers compress stretches of batch, in their order, to
// outs, and returns those that got one.
func compressAll(workers []*worker, outs []output, batch []byte) []output {
	used := outs[:(len(batch)+batchSize-1)/batchSize]
	var wg sync.WaitGroup
	for i := range used {
		stretch := batch[i*batchSize : min((i+1)*batchSize, len(batch))]
		if i == len(used)-1 {
			workers[i].run(stretch, &used[i]) // this goroutine has nothing better to do
			break
		}
		wg.Go(func() { workers[i].run(stretch, &used[i]) })
	}
	wg.Wait()
	return used
}

// run compresses the blocks of p to o.
func (w *worker) run(p []byte, o *output) {
	o.stored, o.lengths, o.err = o.stored[:0], o.lengths[:0], nil
	for len(p) > 0 {
		n := min(w.blockSize, len(p))
		start := len(o.stored)
		o.stored, o.err = w.compress(o.stored, p[:n])
		if o.err != nil {
			return
		}
		if w.verify {
			o.stored = appendChecksum(o.stored, start)
		}
		o.lengths = append(o.lengths, len(o.stored)-start)
		p = p[n:]
	}
}
