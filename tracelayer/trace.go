package tracelayer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// MaxCount is the longest read that a record may have, in bytes: upstream
// replays into a buffer of this size without looking.
const MaxCount = 1 << 20

// MaxSlot bounds the member "trace", in bytes.
const MaxSlot = 64 << 20

// MaxRecords is how many records a trace can have that is taken for one: 2.8
// million.
const MaxRecords = (MaxSlot - headerSize) / recordSize

// ErrFormat is returned for what does not begin like a trace file. Upstream
// takes that for a priority list (ParseList).
var ErrFormat = errors.New("not a trace file: wrong magic")

// Op says what a record is about.
type Op byte

const (
	// Read is a read, the only operation that is ever replayed.
	Read Op = 'R'
	// Write is defined and never produced.
	Write Op = 'W'
)

// Record is one read of a layer.
type Record struct {
	Op Op
	// Layer counts the layers of the device from the bottom, which is 0,
	// without a trace layer.
	Layer uint32
	// Off and Count (bytes) are of the layer's uncompressed LSMT stream.
	Off, Count int64
}

// Trace is the reads of a start, in the order in which they ended.
type Trace []Record

// The trace file is upstream's C structures with their alignment gaps, little
// endian: header and records of 24 bytes each.
const (
	traceMagic = 0xC2EF1820 // CRC-32 (IEEE) of "Container Image Trace Format"
	headerSize = 24         // magic u32, gap, size of the records u64, checksum u32, gap
	recordSize = 24         // op byte, gap of 3, layer u32, count u64, offset u64
)

// Decode decodes a trace file. It accepts what upstream accepts, which knows no
// wrong records: any operation, layer, offset and count may come out, negative
// ones too, and nothing bounds their number but the length of data. Trace.Within
// takes the usable ones. Gaps may hold anything, which the checksum includes.
//
// The error is ErrFormat if data does not begin as trace files do.
func Decode(data []byte) (Trace, error) {
	le := binary.LittleEndian
	if len(data) < headerSize || le.Uint32(data) != traceMagic {
		return nil, ErrFormat
	}
	size, sum, records := le.Uint64(data[8:]), le.Uint32(data[16:]), data[headerSize:]
	switch {
	case size != uint64(len(records)):
		return nil, fmt.Errorf("trace file has %d bytes of records, its header says %d", len(records), size)
	case size%recordSize != 0:
		return nil, fmt.Errorf("trace file has %d bytes of records, not a multiple of %d", size, recordSize)
	case rawCRC(records) != sum:
		return nil, fmt.Errorf("trace file has checksum %#08x, its header says %#08x", rawCRC(records), sum)
	}
	t := make(Trace, len(records)/recordSize)
	for i := range t {
		r := records[i*recordSize:]
		t[i] = Record{
			Op: Op(r[0]), Layer: le.Uint32(r[4:]),
			Count: int64(le.Uint64(r[8:])), Off: int64(le.Uint64(r[16:])),
		}
	}
	return t, nil
}

// Encode returns t as a trace file. Gaps are zero. A record of more than
// MaxCount becomes several.
func (t Trace) Encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, headerSize, headerSize+len(t)*recordSize)
	for _, r := range t {
		for {
			count := min(r.Count, MaxCount)
			b = append(b, byte(r.Op), 0, 0, 0)
			b = le.AppendUint32(b, r.Layer)
			b = le.AppendUint64(b, uint64(count))
			b = le.AppendUint64(b, uint64(r.Off))
			if r.Count -= count; r.Count == 0 || count <= 0 {
				break
			}
			r.Off += count
		}
	}
	le.PutUint32(b, traceMagic)
	le.PutUint64(b[8:], uint64(len(b)-headerSize))
	le.PutUint32(b[16:], rawCRC(b[headerSize:]))
	return b
}

// Within returns the reads of t that lie in layers with LSMT streams of the
// given sizes (bytes, bottom first), and how many records it left out: of other
// operations, unknown layers, nothing, or of bytes that the layer does not have.
func (t Trace) Within(sizes []int64) (usable Trace, skipped int) {
	for _, r := range t {
		if !r.Sound() || uint64(r.Layer) >= uint64(len(sizes)) || r.Off+r.Count > sizes[r.Layer] {
			skipped++
			continue
		}
		usable = append(usable, r)
	}
	return usable, skipped
}

// Sound reports whether r is a read of a range that can exist, in some layer.
func (r Record) Sound() bool {
	return r.Op == Read && r.Off >= 0 && r.Count > 0 && r.Off <= math.MaxInt64-r.Count
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawCRC returns the CRC-32C of data as upstream's formats use it: it begins
// with 0 and is not inverted.
func rawCRC(data []byte) uint32 { return ^crc32.Update(^uint32(0), castagnoli, data) }
