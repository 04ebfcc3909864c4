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

	out     []byte // stored blocks
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

// compressAll lets the workers compress stretches of batch, in their order,
// and returns those that got one.
func compressAll(workers []*worker, batch []byte) []*worker {
	used := workers[:(len(batch)+batchSize-1)/batchSize]
	var wg sync.WaitGroup
	for i, w := range used {
		stretch := batch[i*batchSize : min((i+1)*batchSize, len(batch))]
		if i == len(used)-1 {
			w.run(stretch) // this goroutine has nothing better to do
			break
		}
		wg.Go(func() { w.run(stretch) })
	}
	wg.Wait()
	return used
}

// run compresses the blocks of p to out and lengths.
func (w *worker) run(p []byte) {
	w.out, w.lengths, w.err = w.out[:0], w.lengths[:0], nil
	for len(p) > 0 {
		n := min(w.blockSize, len(p))
		start := len(w.out)
		w.out, w.err = w.compress(w.out, p[:n])
		if w.err != nil {
			return
		}
		if w.verify {
			w.out = appendChecksum(w.out, start)
		}
		w.lengths = append(w.lengths, len(w.out)-start)
		p = p[n:]
	}
}
