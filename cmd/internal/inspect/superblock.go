package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// superblockRoom covers the superblocks of ext4 (1024 bytes at 1024), xfs (at
// 0) and erofs (128 bytes at 1024).
const superblockRoom = 2048

// fileSystemSize returns the size in bytes that the superblock of a file system
// of the given type states, or 0 if it is not one that can be right.
func fileSystemSize(ctx context.Context, r blob.ReaderAt, fsType string) (int64, error) {
	p := make([]byte, superblockRoom)
	if n, err := r.ReadAt(ctx, p, 0); n < len(p) && err != io.EOF { //nolint:errorlint // one that wraps it is an error
		return 0, fmt.Errorf("reading the superblock: %w", err)
	}
	var blocks uint64
	var shift uint32
	switch fsType {
	case "ext4":
		blocks, shift = ext4Blocks(p[1024:])
	case "xfs":
		// sb_blocklog, and sb_dblocks in big endian.
		blocks, shift = binary.BigEndian.Uint64(p[8:]), uint32(p[120])
	case "erofs":
		// blkszbits and blocks.
		blocks, shift = uint64(binary.LittleEndian.Uint32(p[1024+36:])), uint32(p[1024+12])
	}
	if shift > 16 || blocks > 1<<40 {
		return 0, nil
	}
	return int64(blocks << shift), nil
}

// ext4Blocks returns the number of blocks, and the logarithm of their size,
// from an ext4 superblock.
func ext4Blocks(p []byte) (blocks uint64, shift uint32) {
	const feature64bit = 0x80 // in s_feature_incompat
	le := binary.LittleEndian
	blocks = uint64(le.Uint32(p[4:]))
	if le.Uint32(p[96:])&feature64bit != 0 {
		blocks |= uint64(le.Uint32(p[336:])) << 32
	}
	return blocks, le.Uint32(p[24:]) + 10
}
