package lsmt

import "encoding/binary"

// SectorSize is the unit of all offsets and lengths in an index, in bytes.
const SectorSize = 512

const (
	recordSize = 16
	lengthBits = 14
	maxLength  = 1<<lengthBits - 1 // sectors in one record
	offsetBits = 50
	offsetMask = 1<<offsetBits - 1
	invalid    = offsetMask // offset of padding records
	mappedBits = 55
	mappedMask = 1<<mappedBits - 1
	zeroedBit  = 1 << mappedBits
	layerShift = mappedBits + 1
)

// entry is a record as it is kept in memory: the record of the format with
// the two fields of the first word swapped, so that entries order by it, and
// the tag replaced by the number of the layer. 16 bytes.
type entry struct {
	key uint64 // first sector << 14 | length
	to  uint64 // layer << 56 | zeroed << 55 | first mapped sector
}

func newEntry(offset, length, mapped uint64, zeroed bool) entry {
	e := entry{key: offset<<lengthBits | length, to: mapped}
	if zeroed {
		e.to |= zeroedBit
	}
	return e
}

func (e entry) offset() uint64 { return e.key >> lengthBits }
func (e entry) length() uint64 { return e.key & maxLength }
func (e entry) end() uint64    { return e.offset() + e.length() }
func (e entry) mapped() uint64 { return e.to & mappedMask }
func (e entry) zeroed() bool   { return e.to&zeroedBit != 0 }
func (e entry) layer() int     { return int(e.to >> layerShift) }

// mappedEnd returns the sector after the mapped ones; a zeroed entry has none.
func (e entry) mappedEnd() uint64 {
	if e.zeroed() {
		return e.mapped()
	}
	return e.mapped() + e.length()
}

// trimFront returns e without its first n sectors.
func (e entry) trimFront(n uint64) entry {
	e.key += n<<lengthBits - n
	if !e.zeroed() {
		e.to += n
	}
	return e
}

// trimBack returns e without its last n sectors.
func (e entry) trimBack(n uint64) entry {
	e.key -= n
	return e
}

// decodeRecord decodes the record at the start of b, and false if it is
// padding. The tag is dropped: in ordinary layers it has no meaning on disk.
func decodeRecord(b []byte) (entry, bool) {
	w0, w1 := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	offset := w0 & offsetMask
	return entry{key: offset<<lengthBits | w0>>offsetBits, to: w1 & (zeroedBit | mappedMask)}, offset != invalid
}

// appendRecord appends e in the format of the disk, with tag 0.
func appendRecord(b []byte, e entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.offset()|e.length()<<offsetBits)
	return binary.LittleEndian.AppendUint64(b, e.to&(zeroedBit|mappedMask))
}

// Segment is a range of the virtual disk and where its data lies.
type Segment struct {
	Offset int64 // first sector on the virtual disk
	Length int64 // in sectors
	Mapped int64 // first sector in the layer's stream; no meaning if Zeroed
	Zeroed bool  // reads as zeros
	Layer  int   // number of the layer in the stack, 0 is the bottom
}

func (e entry) segment() Segment {
	return Segment{
		Offset: int64(e.offset()),
		Length: int64(e.length()),
		Mapped: int64(e.mapped()),
		Zeroed: e.zeroed(),
		Layer:  e.layer(),
	}
}
