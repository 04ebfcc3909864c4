package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// BlockSize is the size of a block in bytes, the only one supported.
	BlockSize = 4096

	blockBits   = 12
	superOffset = 1024 // bytes
	superSize   = 128  // bytes
	magic       = 0xe0f5e1e2

	slotSize = 32 // bytes; an inode number times this is where the inode is
	rootNID  = (superOffset + superSize) / slotSize
)

// Bits of the superblock's compatible features.
const (
	featureChecksum = 1 << 0
	featureMTime    = 1 << 1 // times of inodes are of modification
)

// Bits of the superblock's incompatible features.
const (
	featureZeroPadding = 1 << 0 // LZ4 clusters are padded in front
	featureCompression = 1 << 1 // there are compression algorithms to be configured
)

// ErrFormat is wrapped by errors about what is not an erofs file system, is
// damaged, or uses what this package does not support.
var ErrFormat = errors.New("not a file system this package can read")

// superblock holds the fields that are used.
type superblock struct {
	uuid   [16]byte
	inodes uint64 // ever written
	blocks uint32 // of the device that are in use
	meta   uint32 // block that inode numbers count from
	xattrs uint32 // block that shared attributes count from
	root   uint64 // inode number
}

// encode writes the superblock into block 0, all of which its checksum covers.
func (s *superblock) encode(block []byte) {
	b := block[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], 0)
	le.PutUint32(b[8:], featureChecksum|featureMTime)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(s.root))
	le.PutUint64(b[16:], s.inodes)
	le.PutUint32(b[36:], s.blocks)
	le.PutUint32(b[40:], s.meta)
	le.PutUint32(b[44:], s.xattrs)
	copy(b[48:], s.uuid[:])
	le.PutUint32(b[4:], checksum(b))
}

func decodeSuperblock(block []byte) (superblock, error) {
	b := block[superOffset:]
	le := binary.LittleEndian
	switch {
	case le.Uint32(b) != magic:
		return superblock{}, fmt.Errorf("%w: no erofs superblock", ErrFormat)
	case b[12] != blockBits:
		return superblock{}, fmt.Errorf("%w: blocks of 2^%d bytes", ErrFormat, b[12])
	case le.Uint32(b[80:])&(featureZeroPadding|featureCompression) != 0:
		return superblock{}, fmt.Errorf("%w: its files are compressed", ErrFormat)
	case le.Uint32(b[80:]) != 0:
		return superblock{}, fmt.Errorf("%w: features %#x", ErrFormat, le.Uint32(b[80:]))
	case b[90] != 0:
		return superblock{}, fmt.Errorf("%w: directory blocks of several blocks", ErrFormat)
	}
	if le.Uint32(b[8:])&featureChecksum != 0 {
		want := le.Uint32(b[4:])
		c := append([]byte(nil), b...)
		clear(c[4:8])
		if got := checksum(c); got != want {
			return superblock{}, fmt.Errorf("%w: checksum of the superblock is %#08x, not %#08x", ErrFormat, got, want)
		}
	}
	s := superblock{
		inodes: le.Uint64(b[16:]),
		blocks: le.Uint32(b[36:]),
		meta:   le.Uint32(b[40:]),
		xattrs: le.Uint32(b[44:]),
		root:   uint64(le.Uint16(b[14:])),
	}
	copy(s.uuid[:], b[48:])
	return s, nil
}

// checksum is the CRC-32C of the kernel, which does not invert at the end.
func checksum(b []byte) uint32 {
	return ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
