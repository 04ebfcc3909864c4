package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

const (
	superOffset = 1024 // bytes
	superSize   = 1024 // bytes
	magic       = 0xef53

	minBlock, maxBlock = 1 << 10, 64 << 10 // bytes
)

// Bits of the features without which a file system can't be read.
const (
	incompatFileType   = 0x2
	incompatRecover    = 0x4
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompat64Bit      = 0x80
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatCsumSeed   = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatCaseFold   = 0x20000

	incompatKnown = incompatFileType | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit |
		incompatMMP | incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargeDir |
		incompatInlineData | incompatCaseFold
)

const (
	compatJournal       = 0x4
	compatSparseSuper2  = 0x200
	roCompatSparseSuper = 0x1

	flagUnsignedHash = 0x2
)

// ErrFormat is wrapped by errors about what is not an ext4 file system, is
// damaged, or uses what this package does not support.
var ErrFormat = errors.New("not an ext4 file system this package can read")

// superblock holds the fields that are used.
type superblock struct {
	inodes         uint32
	blocks         uint64
	firstData      uint32 // block that groups count from
	blockSize      int64  // bytes
	blocksPerGroup uint32
	inodesPerGroup uint32
	inodeSize      int64 // bytes
	descSize       int64 // bytes
	firstMetaBG    uint32
	compat         uint32
	incompat       uint32
	roCompat       uint32
	journal        uint32    // inode number
	backups        [2]uint32 // groups, of sparse_super2
	seed           [4]uint32
	unsignedHash   bool
}

func decodeSuperblock(b []byte) (superblock, error) {
	le := binary.LittleEndian
	if le.Uint16(b[56:]) != magic {
		return superblock{}, fmt.Errorf("%w: no superblock", ErrFormat)
	}
	s := superblock{
		inodes:         le.Uint32(b[0:]),
		blocks:         uint64(le.Uint32(b[4:])),
		firstData:      le.Uint32(b[20:]),
		blocksPerGroup: le.Uint32(b[32:]),
		inodesPerGroup: le.Uint32(b[40:]),
		inodeSize:      128,
		descSize:       32,
		compat:         le.Uint32(b[92:]),
		incompat:       le.Uint32(b[96:]),
		roCompat:       le.Uint32(b[100:]),
		unsignedHash:   le.Uint32(b[0x160:])&flagUnsignedHash != 0,
		firstMetaBG:    le.Uint32(b[0x104:]),
		journal:        le.Uint32(b[0xe0:]),
	}
	for i := range s.seed {
		s.seed[i] = le.Uint32(b[0xec+4*i:])
	}
	s.backups = [2]uint32{le.Uint32(b[0x24c:]), le.Uint32(b[0x250:])}
	if le.Uint32(b[76:]) > 0 { // revision
		s.inodeSize = int64(le.Uint16(b[88:]))
	}
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= uint64(le.Uint32(b[0x150:])) << 32
		s.descSize = int64(le.Uint16(b[0xfe:]))
	}
	shift := le.Uint32(b[24:])
	if shift > 6 {
		return superblock{}, fmt.Errorf("%w: blocks of 2^%d KiB", ErrFormat, shift)
	}
	s.blockSize = minBlock << shift
	return s, s.validate()
}

func (s *superblock) validate() error {
	switch unknown := s.incompat &^ incompatKnown; {
	case unknown != 0:
		return fmt.Errorf("%w: features %#x", ErrFormat, unknown)
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || !powerOfTwo(s.inodeSize):
		return fmt.Errorf("%w: inodes of %d bytes", ErrFormat, s.inodeSize)
	case s.descSize < 32 || s.descSize > s.blockSize || !powerOfTwo(s.descSize):
		return fmt.Errorf("%w: group descriptors of %d bytes", ErrFormat, s.descSize)
	case s.blocksPerGroup == 0 || s.inodesPerGroup == 0:
		return fmt.Errorf("%w: groups of %d blocks and %d inodes", ErrFormat, s.blocksPerGroup, s.inodesPerGroup)
	case s.blocks > 1<<48 || s.blocks <= uint64(s.firstData):
		return fmt.Errorf("%w: %d blocks", ErrFormat, s.blocks)
	}
	return nil
}

func powerOfTwo(n int64) bool { return bits.OnesCount64(uint64(n)) == 1 }

// descriptor returns where the descriptor of a group is, in bytes.
func (s *superblock) descriptor(group uint32) int64 {
	perBlock := uint32(s.blockSize / s.descSize)
	table := group / perBlock // block of the table
	block := superOffset/s.blockSize + 1 + int64(table)
	if s.incompat&incompatMetaBG != 0 && table >= s.firstMetaBG {
		// The block lies in the first of the groups it describes.
		first := table * perBlock
		block = int64(s.firstData) + int64(first)*int64(s.blocksPerGroup)
		if s.hasSuper(first) {
			block++
		}
		if s.blockSize == minBlock && table == 0 && s.firstData == 0 {
			block++
		}
	}
	return block*s.blockSize + int64(group%perBlock)*s.descSize
}

// groups returns the number of block groups.
func (s *superblock) groups() uint64 {
	return (s.blocks - uint64(s.firstData) + uint64(s.blocksPerGroup) - 1) / uint64(s.blocksPerGroup)
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (s *superblock) hasSuper(group uint32) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return group == s.backups[0] || group == s.backups[1]
	case group == 1 || s.roCompat&roCompatSparseSuper == 0:
		return true
	}
	return powerOf(group, 3) || powerOf(group, 5) || powerOf(group, 7)
}

func powerOf(n, base uint32) bool {
	for n%base == 0 {
		n /= base
	}
	return n == 1
}
