package blob

// Discarder is the optional ability of a ReaderAt to forget bytes it holds
// locally, so that the next read fetches them again. A format reader that
// finds a block with a wrong checksum calls it before it reads once more;
// decorators and formats pass the call down.
type Discarder interface {
	// Discard forgets [off, off+n) bytes, or more where it can't forget so
	// little. It does not touch the source of the bytes, does not block on
	// the network, and may run in parallel with reads.
	Discard(off, n int64)
}

// Discard asks r to forget [off, off+n) bytes and reports whether r has the
// ability.
func Discard(r ReaderAt, off, n int64) bool {
	d, ok := r.(Discarder)
	if ok {
		d.Discard(off, n)
	}
	return ok
}
