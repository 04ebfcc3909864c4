package presence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// The map file, all integers little endian:
//
//	 0  8  magic "RPRSMAP" and the version, 2
//	 8  4  CRC-32C of everything from offset 12 to the end
//	12  4  length d of the digest
//	16  8  size of the blob in bytes
//	24  8  inode number of the data file the map speaks of
//	32  4  number n of runs
//	36  4  zero
//	40  d  digest of the blob, as text
//	    n times, ascending by index:
//	    4      index of the run
//	    4      number k of bounds, even and not 0
//	    4 * k  bounds, ascending: bytes from the start of the run to where a
//	           range begins that is present, ends, begins, ...
//
// No bound is beyond the end of the run or of the blob. Version 1 had a bit for
// each 512 bytes; it is refused like anything else that is not this format.
const (
	magic      = "RPRSMAP\x02"
	headerSize = 40
	runHeader  = 8
	boundSize  = 4
	maxBounds  = Run / Block * BlockRanges * 2 // of a run
	maxDigest  = 256
)

// Identity binds a map file to a blob and to the data file that holds its
// bytes: a map that belongs to another file must not be believed.
type Identity struct {
	Digest string // of the blob, for example "sha256:..."
	Size   int64  // of the blob, bytes
	Inode  uint64 // of the data file
}

// ErrCorrupt is wrapped by every error Parse returns.
var ErrCorrupt = errors.New("presence map is damaged or belongs to another file")

// FileLimit returns the largest length in bytes a map file of a blob of the
// given size can have.
func FileLimit(size int64) int64 {
	return headerSize + maxDigest + (size/Run+1)*(runHeader+maxBounds*boundSize)
}

// Append appends the map file of m to buf. Of a run that changes meanwhile, what
// it was before or after is in it.
func (m *Map) Append(buf []byte, id Identity) []byte {
	start := len(buf)
	buf = append(buf, magic...)
	buf = append(buf, 0, 0, 0, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(id.Digest)))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(id.Size))
	buf = binary.LittleEndian.AppendUint64(buf, id.Inode)
	buf = append(buf, 0, 0, 0, 0, 0, 0, 0, 0)
	buf = append(buf, id.Digest...)
	runs := uint32(0)
	for i, r := range m.Runs() {
		buf = slices.Grow(buf, runHeader+len(r.bounds)*boundSize)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(i))
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(r.bounds)))
		for _, x := range r.bounds {
			buf = binary.LittleEndian.AppendUint32(buf, x)
		}
		runs++
	}
	file := buf[start:]
	binary.LittleEndian.PutUint32(file[32:], runs)
	binary.LittleEndian.PutUint32(file[8:], checksum(file))
	return buf
}

// Parse reads a map file and refuses one that is damaged or not of id. What it
// allocates is bounded by the length of data and by id.Size.
func Parse(data []byte, id Identity) (*Map, error) {
	if id.Size < 0 || id.Size > MaxSize {
		return nil, fmt.Errorf("%w: blob of %d bytes", ErrCorrupt, id.Size)
	}
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if binary.LittleEndian.Uint32(data[8:]) != checksum(data) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	digestLen := int64(binary.LittleEndian.Uint32(data[12:]))
	if digestLen > int64(len(data))-headerSize {
		return nil, fmt.Errorf("%w: digest of %d bytes", ErrCorrupt, digestLen)
	}
	got := Identity{
		Digest: string(data[headerSize : headerSize+digestLen]),
		Size:   int64(binary.LittleEndian.Uint64(data[16:])),
		Inode:  binary.LittleEndian.Uint64(data[24:]),
	}
	if got != id {
		return nil, fmt.Errorf("%w: it is of %+v, not of %+v", ErrCorrupt, got, id)
	}
	runs, zero := binary.LittleEndian.Uint32(data[32:]), binary.LittleEndian.Uint32(data[36:])
	if zero != 0 {
		return nil, fmt.Errorf("%w: header with %#x at its end", ErrCorrupt, zero)
	}
	m := New(id.Size)
	if err := m.parseRuns(data[headerSize+digestLen:], runs); err != nil {
		return nil, err
	}
	return m, nil
}

// parseRuns reads n runs, which are all of data.
func (m *Map) parseRuns(data []byte, n uint32) error {
	last := int64(-1)
	for ; n > 0; n-- {
		if len(data) < runHeader {
			return fmt.Errorf("%w: %d runs are missing", ErrCorrupt, n)
		}
		i, k := int64(binary.LittleEndian.Uint32(data)), int64(binary.LittleEndian.Uint32(data[4:]))
		data = data[runHeader:]
		if i <= last || i >= int64(m.runCount()) {
			return fmt.Errorf("%w: run %d after run %d of %d", ErrCorrupt, i, last, m.runCount())
		}
		if k == 0 || k%2 != 0 || k > maxBounds || k*boundSize > int64(len(data)) {
			return fmt.Errorf("%w: %d bounds of run %d in %d bytes", ErrCorrupt, k, i, len(data))
		}
		bounds, err := parseBounds(data[:k*boundSize], min(m.size-i*Run, Run))
		if err != nil {
			return fmt.Errorf("%w in run %d", err, i)
		}
		m.slot(i).Store(&Ranges{bounds})
		data, last = data[k*boundSize:], i
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: %d bytes after the last run", ErrCorrupt, len(data))
	}
	return nil
}

// parseBounds reads the bounds of a run of size bytes.
func parseBounds(data []byte, size int64) ([]uint32, error) {
	bounds := make([]uint32, len(data)/boundSize)
	last := int64(-1)
	for k := range bounds {
		x := binary.LittleEndian.Uint32(data[k*boundSize:])
		if int64(x) <= last || int64(x) > size {
			return nil, fmt.Errorf("%w: bound %d after %d of %d bytes", ErrCorrupt, x, last, size)
		}
		bounds[k], last = x, int64(x)
	}
	return bounds, nil
}

func checksum(file []byte) uint32 {
	return crc32.Checksum(file[12:], crc32.MakeTable(crc32.Castagnoli))
}
