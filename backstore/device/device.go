// Package device declares what a block device of Reprise is, apart from how
// the kernel gets to see it (see package fusedev).
package device

import (
	"context"

	"github.com/reprise-containers/reprise/remote/blob"
)

// SectorSize is the unit in bytes to which device sizes and kernel requests
// are aligned.
const SectorSize = 512

// Device is a block device, as it is read. Size is a multiple of SectorSize.
// ReadAt is called in parallel, with offsets and lengths that are multiples of
// SectorSize, and may block for as long as a registry does. A Device may open
// what lies below it on the first read, but Size never blocks.
type Device interface {
	blob.ReaderAt
}

// Writable is a block device that can be written. Offsets and lengths are
// multiples of SectorSize and lie within Size. Calls may overlap in time; of
// those that overlap in what they write, too, any may win, sector by sector.
// Writing again what was written already, as the kernel does for a request that
// a crashed daemon left unanswered, changes nothing.
//
// An error that wraps syscall.ENOSPC reaches the kernel as such; every other one
// is EIO.
type Writable interface {
	Device

	// WriteAt writes len(p) bytes, or returns an error and then may have
	// written any part. It never keeps p.
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)

	// Discard makes n bytes from off on read as zeros and frees what they
	// take, where that can be done.
	Discard(ctx context.Context, off, n int64) error

	// Flush makes everything durable that was written, or discarded, before it
	// was called.
	Flush(ctx context.Context) error
}
