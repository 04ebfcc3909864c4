package lsmt

// IndexBytes returns the memory in bytes that the merged index takes.
func (m *Image) IndexBytes() int64 {
	n := len(m.index.to)
	for _, level := range m.index.levels {
		n += len(level)
	}
	return int64(n) * 8
}
