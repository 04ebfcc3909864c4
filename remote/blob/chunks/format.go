package chunks

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// HeaderSize is the length in bytes of a table's header.
	HeaderSize = 40
	// MaxLeaf is the largest number of bytes in a leaf.
	MaxLeaf = 64 << 10
	// PlainLeaf is the number of bytes in a leaf of what is read as a whole,
	// such as a jump table. Readers take any, but guess by this which pages
	// they will need.
	PlainLeaf = 16 << 10
	// DefaultFanOut is the number of leaves a page has if nobody chose.
	DefaultFanOut = 32
	// MaxFanOut is the largest number of leaves a page can have: what it
	// covers has to fit the 32 bits of an index entry, with room to spare.
	MaxFanOut = 1024
	// MaxIndex bounds the index, in bytes: pages for 238 million leaves.
	MaxIndex = 256 << 20

	magic      = "overlaybd.chunks"
	version    = 1
	hashSHA256 = 1

	hashSize = sha256.Size
	indexAt  = HeaderSize
	// An index entry is the number of bytes covered and the hash of a page.
	entrySize = 4 + hashSize
	// A record of a page is the length less one and the hash of a leaf.
	recordSize = 2 + hashSize
)

// header holds what the first HeaderSize bytes of a table say.
type header struct {
	fanOut  int
	covered int64 // bytes of the blob, from its start
	leaves  int64
}

// encode returns h as it is stored.
func (h header) encode() []byte {
	b := make([]byte, HeaderSize)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint16(b[16:], version)
	b[18] = hashSHA256
	le.PutUint32(b[20:], uint32(h.fanOut))
	le.PutUint64(b[24:], uint64(h.covered))
	le.PutUint64(b[32:], uint64(h.leaves))
	return b
}

// decodeHeader decodes the header of a table of size bytes and checks whether
// such a table has that size. What is allocated later is bounded by size.
func decodeHeader(b []byte, size int64) (header, error) {
	le := binary.LittleEndian
	if len(b) < HeaderSize || string(b[:16]) != magic {
		return header{}, fmt.Errorf("not a chunk table: wrong magic")
	}
	if v := le.Uint16(b[16:]); v != version {
		return header{}, fmt.Errorf("chunk table has version %d, known is %d", v, version)
	}
	if b[18] != hashSHA256 || b[19] != 0 {
		return header{}, fmt.Errorf("chunk table has hash %d and reserved byte %d, known are %d and 0", b[18], b[19], hashSHA256)
	}
	fanOut, covered, leaves := le.Uint32(b[20:]), le.Uint64(b[24:]), le.Uint64(b[32:])
	switch {
	case fanOut < 1 || fanOut > MaxFanOut:
		return header{}, fmt.Errorf("chunk table has %d leaves a page, not 1 to %d", fanOut, MaxFanOut)
	case leaves > uint64(size)/recordSize:
		return header{}, fmt.Errorf("chunk table of %d leaves does not fit %d bytes", leaves, size)
	case covered < leaves || covered > leaves*MaxLeaf:
		return header{}, fmt.Errorf("chunk table has %d leaves of 1 to %d bytes for %d bytes", leaves, MaxLeaf, covered)
	}
	h := header{fanOut: int(fanOut), covered: int64(covered), leaves: int64(leaves)}
	switch {
	case h.pages() > MaxIndex/entrySize:
		return header{}, fmt.Errorf("chunk table has %d pages, more than %d", h.pages(), MaxIndex/entrySize)
	case h.size() != size:
		return header{}, fmt.Errorf("chunk table has %d bytes, not the %d that its header implies", size, h.size())
	}
	return h, nil
}

// pages returns the number of pages.
func (h header) pages() int64 {
	return (h.leaves + int64(h.fanOut) - 1) / int64(h.fanOut)
}

// pagesAt returns the length of header and index, where page 0 starts.
func (h header) pagesAt() int64 { return indexAt + h.pages()*entrySize }

// size returns the length of the table.
func (h header) size() int64 { return h.pagesAt() + h.leaves*recordSize }

// page returns where in the table page i lies and how many leaves it has.
func (h header) page(i int64) (off int64, leaves int) {
	first := i * int64(h.fanOut)
	return h.pagesAt() + first*recordSize, int(min(int64(h.fanOut), h.leaves-first))
}

// guess returns the header without its covered bytes of a table of size bytes
// that has pages of DefaultFanOut leaves.
func guess(size int64) header {
	const full = entrySize + DefaultFanOut*recordSize
	pages := (size - indexAt + full - 1) / full
	return header{fanOut: DefaultFanOut, leaves: max(0, (size-indexAt-pages*entrySize)/recordSize)}
}
