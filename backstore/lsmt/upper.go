package lsmt

// UpperFiles are the files of a writable layer, by absolute paths. They are
// overlaybd's: its configuration has them as "upper".
type UpperFiles struct {
	// Data is the data file.
	Data string
	// Index is the index file. Every writable layer has one; that of a sparse
	// layer is empty.
	Index string
}
