package lsmt

import "unsafe"

// IndexBytes returns the memory in bytes that the merged index takes.
func (m *Image) IndexBytes() int64 {
	const perEntry, perPart = int64(unsafe.Sizeof(entry{})), int64(unsafe.Sizeof(uint32(0)))
	return int64(cap(m.index.entries))*perEntry + int64(cap(m.index.directory))*perPart
}
