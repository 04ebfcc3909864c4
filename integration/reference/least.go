package reference

import (
	"bytes"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
)

// Compressed returns what the touched blocks of the disk image at path are with
// each block compressed by itself, with zstd at level 3: a measure of what a
// start needs that does not depend on how images are stored. Blocks of zeros are
// nothing.
func (r Result) Compressed(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(3)),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return 0, err
	}
	defer z.Close()
	var sum int64
	block, zeros, out := make([]byte, BlockSize), make([]byte, BlockSize), []byte(nil)
	for b := range r.Blocks() {
		if _, err := f.ReadAt(block, b*BlockSize); err != nil {
			return 0, fmt.Errorf("reading block %d of %s: %w", b, path, err)
		}
		if !bytes.Equal(block, zeros) {
			out = z.EncodeAll(block, out[:0])
			sum += int64(len(out))
		}
	}
	return sum, nil
}
