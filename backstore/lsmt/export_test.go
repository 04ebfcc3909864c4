package lsmt

// Find returns the number of the first segment that ends after sector.
func (m *Image) Find(sector int64) int { return m.index.find(uint64(sector)) }

// NewImage returns an image of the given segments over files.
func NewImage(size int64, segments []Segment) *Image {
	return &Image{index: newIndex(newEntries(segments)), size: size}
}

func newEntries(segments []Segment) []entry {
	entries := make([]entry, len(segments))
	for i, s := range segments {
		entries[i] = newEntry(uint64(s.Offset), uint64(s.Length), uint64(s.Mapped), s.Zeroed)
	}
	return entries
}

// BuildLayer returns a committed layer with exactly these data and records,
// right or wrong.
func BuildLayer(id Identity, data []byte, records []Segment) []byte {
	h := header{Identity: id, flags: flagHeader | flagData | flagSealed}
	b := append(h.encode(), data...)
	h.flags, h.indexOffset, h.records = flagData|flagSealed, uint64(len(b)), uint64(len(records))
	for _, e := range newEntries(records) {
		b = appendRecord(b, e)
	}
	return append(b, h.encode()...)
}

// BuildLog returns the files of an append-only layer with exactly these data
// and records.
func BuildLog(id Identity, data []byte, records []Segment) (dataFile, indexFile []byte) {
	h := header{Identity: id, flags: flagHeader | flagData}
	dataFile = append(h.encode(), data...)
	h.flags, h.indexOffset = flagHeader, HeaderSize
	indexFile = h.encode()
	for _, e := range newEntries(records) {
		indexFile = appendRecord(indexFile, e)
	}
	return dataFile, indexFile
}

// Records decodes the records of an index, without padding.
func Records(raw []byte) []Segment {
	var out []Segment
	for ; len(raw) >= recordSize; raw = raw[recordSize:] {
		if e, ok := decodeRecord(raw); ok {
			out = append(out, e.segment())
		}
	}
	return out
}
