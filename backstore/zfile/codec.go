package zfile

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Algorithm is how blocks are compressed; the values are those of the format.
type Algorithm uint8

// The algorithms of the format that anybody implements.
const (
	LZ4  Algorithm = 1 // raw LZ4 blocks
	ZSTD Algorithm = 2 // one zstd frame a block
)

// String returns the name overlaybd's tools use.
func (a Algorithm) String() string {
	switch a {
	case LZ4:
		return "lz4"
	case ZSTD:
		return "zstd"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// zstdDecoder returns the one decoder all readers share. It has no state
// between calls, and each of its workers holds tens of kilobytes of tables,
// too much to have by layer. A frame can't decode to more than the room given.
//
//nolint:gochecknoglobals // shared scratch memory, no state
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(2*maxBlockSize))
})

// decode decompresses src to exactly len(dst) bytes. It may scribble over
// dst[len(dst):cap(dst)].
func (a Algorithm) decode(dst, src []byte) error {
	n := 0
	switch a {
	case LZ4:
		var err error
		if n, err = lz4.UncompressBlock(src, dst); err != nil {
			return fmt.Errorf("decompressing lz4: %w", err)
		}
	case ZSTD:
		d, err := zstdDecoder()
		if err != nil {
			return fmt.Errorf("creating zstd decoder: %w", err)
		}
		out, err := d.DecodeAll(src, dst[:0])
		if err != nil {
			return fmt.Errorf("decompressing zstd: %w", err)
		}
		n = len(out)
	}
	if n != len(dst) {
		return fmt.Errorf("decompressing %s: block has %d bytes, want %d", a, n, len(dst))
	}
	return nil
}
