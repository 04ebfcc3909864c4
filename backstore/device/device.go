// Package device declares what a block device of Reprise is, apart from how
// the kernel gets to see it (see package fusedev).
package device

import "github.com/reprise-containers/reprise/remote/blob"

// SectorSize is the unit in bytes to which device sizes and kernel requests
// are aligned.
const SectorSize = 512

// Device is a read-only block device. Size is a multiple of SectorSize.
// ReadAt is called in parallel, with offsets and lengths that are multiples of
// SectorSize, and may block for as long as a registry does. A Device may open
// what lies below it on the first read, but Size never blocks.
type Device interface {
	blob.ReaderAt
}
