package lsmt

// Find returns the number of the first segment that ends after sector.
func (m *Image) Find(sector int64) int { return m.index.find(uint64(sector)) }

// NewImage returns an image of the given segments over files.
func NewImage(size int64, segments []Segment) *Image {
	entries := make([]entry, len(segments))
	for i, s := range segments {
		entries[i] = newEntry(uint64(s.Offset), uint64(s.Length), uint64(s.Mapped), s.Zeroed)
	}
	return &Image{index: newIndex(entries), size: size}
}
