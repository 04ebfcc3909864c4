package backstore

import "fmt"

// MaxOverlaybdSize is the size in bytes of the largest device that overlaybd's
// own reader can read. Its search tree keeps the numbers of sectors in 32 bits,
// and with one that needs more it returns zeros for all of them.
const MaxOverlaybdSize = 2 << 40

// SizeWarning returns what somebody should know who is about to write a layer for
// a device of size bytes, or "".
func SizeWarning(size int64) string {
	if size <= MaxOverlaybdSize {
		return ""
	}
	return fmt.Sprintf("a device of %d bytes is larger than 2 TiB (2048 GiB): the format allows it and Reprise reads it, but overlaybd's own reader can't", size)
}
