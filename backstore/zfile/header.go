package zfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// HeaderSize is the length in bytes of the header and of the trailer.
const HeaderSize = 512

const (
	structSize   = 96
	maxBlockSize = 64 << 10
	maxBlocks    = 1_000_000_000
)

// Flag bits; readers ignore all others, because old writers left garbage there.
const (
	flagHeader    = 1 << 0 // header, else trailer
	flagData      = 1 << 1
	flagSealed    = 1 << 2
	flagFinal     = 1 << 3 // header has the final values, no need for the trailer
	flagDigest    = 1 << 4 // digest and index checksum are valid
	flagsFirst    = flagHeader | flagData | flagDigest
	flagsFinal    = flagHeader | flagData | flagFinal | flagDigest
	flagsTrailer  = flagData | flagSealed | flagDigest
	digestAt      = 28
	digestEnd     = digestAt + checksumSize
	magicSize     = 24
	magicString   = "ZFile\x00\x01\x00tuji.yyf@Alibaba"
	jumpEntrySize = 4
)

// ErrFormat is wrapped by the error of Open for a blob that is not a ZFile.
var ErrFormat = errors.New("not a ZFile")

var errMagic = errors.New("wrong magic")

// header holds the fields of a header or trailer block that mean something.
type header struct {
	flags        uint64
	indexOffset  uint64 // of the jump table, from the start of the ZFile
	blocks       uint64 // entries in the jump table
	originalSize uint64 // uncompressed bytes
	indexCRC     uint32
	blockSize    uint32
	algorithm    Algorithm
	dictSize     uint32
	verify       bool
}

func (h *header) has(flag uint64) bool { return h.flags&flag != 0 }

// decodeHeader decodes a header or trailer and checks magic and digest.
func decodeHeader(b []byte) (*header, error) {
	if string(b[:magicSize]) != magicString {
		return nil, errMagic
	}
	le := binary.LittleEndian
	h := &header{
		flags:        le.Uint64(b[32:]),
		indexOffset:  le.Uint64(b[40:]),
		blocks:       le.Uint64(b[48:]),
		originalSize: le.Uint64(b[56:]),
		indexCRC:     le.Uint32(b[64:]),
		blockSize:    le.Uint32(b[72:]),
		algorithm:    Algorithm(b[76]),
		dictSize:     le.Uint32(b[84:]),
		verify:       b[88] != 0,
	}
	if h.has(flagDigest) {
		if want, got := le.Uint32(b[digestAt:]), digest(b); want != got {
			return nil, fmt.Errorf("digest is %#08x, block has %#08x", want, got)
		}
	}
	return h, nil
}

// digest returns the checksum of a header block with its digest field zeroed.
func digest(b []byte) uint32 {
	crc := rawCRC(0, b[:digestAt])
	crc = rawCRC(crc, make([]byte, checksumSize))
	return rawCRC(crc, b[digestEnd:HeaderSize])
}

// encode returns h as a block of HeaderSize bytes with its digest.
func (h *header) encode() []byte {
	b := make([]byte, HeaderSize)
	copy(b, magicString)
	le := binary.LittleEndian
	le.PutUint32(b[24:], structSize)
	le.PutUint64(b[32:], h.flags)
	le.PutUint64(b[40:], h.indexOffset)
	le.PutUint64(b[48:], h.blocks)
	le.PutUint64(b[56:], h.originalSize)
	le.PutUint32(b[64:], h.indexCRC)
	le.PutUint32(b[72:], h.blockSize)
	b[76] = byte(h.algorithm)
	le.PutUint32(b[84:], h.dictSize)
	if h.verify {
		b[88] = 1
	}
	le.PutUint32(b[digestAt:], digest(b))
	return b
}

// check applies the rules for final values in a stream whose jump table must
// end at or before limit. It bounds every later allocation by the size of the
// blob, so it runs before any.
func (h *header) check(limit int64) error {
	dataStart := HeaderSize + uint64(h.dictSize)
	switch {
	case h.algorithm != LZ4 && h.algorithm != ZSTD:
		return fmt.Errorf("unknown compression algorithm %d", h.algorithm)
	case bits.OnesCount32(h.blockSize) != 1 || h.blockSize > maxBlockSize:
		return fmt.Errorf("block size %d is not a power of two up to %d", h.blockSize, maxBlockSize)
	case h.blocks > maxBlocks:
		return fmt.Errorf("jump table of %d entries exceeds the limit of %d", h.blocks, maxBlocks)
	case h.indexOffset < dataStart:
		return fmt.Errorf("jump table at offset %d lies before the first block at %d", h.indexOffset, dataStart)
	case h.indexOffset > uint64(limit) || h.blocks*jumpEntrySize > uint64(limit)-h.indexOffset:
		return fmt.Errorf("jump table of %d entries at offset %d ends after %d, the room in the blob", h.blocks, h.indexOffset, limit)
	}
	want := h.originalSize / uint64(h.blockSize)
	if h.originalSize%uint64(h.blockSize) != 0 {
		want++
	}
	if want != h.blocks {
		return fmt.Errorf("%d bytes need %d blocks of %d, jump table has %d", h.originalSize, want, h.blockSize, h.blocks)
	}
	return nil
}
