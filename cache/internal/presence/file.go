package presence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The map file, all integers little endian:
//
//	 0  8  magic "RPRSMAP" and the version, 1
//	 8  4  CRC-32C of everything from offset 12 to the end
//	12  4  length d of the digest
//	16  8  size of the blob in bytes
//	24  8  inode number of the data file the bits speak of
//	32  4  number n of runs
//	36  4  zero
//	40  d  digest of the blob, as text
//	    n times, ascending by index:
//	    4      index of the run
//	    256    bits, unit 0 of the run first
//
// Runs without a bit are left out, bits beyond the blob's size are zero.
const (
	magic      = "RPRSMAP\x01"
	headerSize = 40
	runSize    = 4 + runWords*8
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
func FileLimit(size int64) int64 { return headerSize + maxDigest + (size/Run+1)*runSize }

// Append appends the map file of m to buf. Units that change meanwhile are in
// it or not, each by itself.
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
	for i, b := range m.Runs() {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(i))
		for _, w := range b {
			buf = binary.LittleEndian.AppendUint64(buf, w)
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
	digestLen := uint64(binary.LittleEndian.Uint32(data[12:]))
	runs := uint64(binary.LittleEndian.Uint32(data[32:]))
	if uint64(len(data)) != headerSize+digestLen+runs*runSize {
		return nil, fmt.Errorf("%w: %d bytes long for %d runs", ErrCorrupt, len(data), runs)
	}
	got := Identity{
		Digest: string(data[headerSize : headerSize+digestLen]),
		Size:   int64(binary.LittleEndian.Uint64(data[16:])),
		Inode:  binary.LittleEndian.Uint64(data[24:]),
	}
	if got != id {
		return nil, fmt.Errorf("%w: it is of %+v, not of %+v", ErrCorrupt, got, id)
	}
	m := New(id.Size)
	if err := m.parseRuns(data[headerSize+digestLen:]); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Map) parseRuns(data []byte) error {
	last := int64(-1)
	for ; len(data) > 0; data = data[runSize:] {
		i := int64(binary.LittleEndian.Uint32(data))
		if i <= last || i >= int64(m.runCount()) {
			return fmt.Errorf("%w: run %d after run %d of %d", ErrCorrupt, i, last, m.runCount())
		}
		last = i
		r := m.make(i)
		for k := range r {
			w := binary.LittleEndian.Uint64(data[4+8*k:])
			if w&^legal(m.size, i*runUnits+int64(k)*64) != 0 {
				return fmt.Errorf("%w: bits beyond the end in run %d", ErrCorrupt, i)
			}
			r[k].Store(w)
		}
	}
	return nil
}

// legal returns the mask of the bits that may be set in the word that starts
// at unit u of a blob of size bytes.
func legal(size, u int64) uint64 {
	_, end := span(0, size)
	if u >= end {
		return 0
	}
	mask, _ := word(u, end)
	return mask
}

func checksum(file []byte) uint32 {
	return crc32.Checksum(file[12:], crc32.MakeTable(crc32.Castagnoli))
}
