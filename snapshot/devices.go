package snapshot

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
)

// Devices makes images readable. Calls for different images run in parallel;
// those for one image never do. Every method returns soon after ctx ends.
type Devices interface {
	// Attach makes the file system of img readable at target, an existing
	// empty directory, by mounting it there read-only. An image that is
	// attached and mounted already stays as it is; one whose mount is gone
	// is mounted again. A failed Attach leaves nothing mounted.
	Attach(ctx context.Context, id string, img backstore.Image, target string) error

	// Detach undoes Attach and returns nil if there is nothing to undo. If it
	// fails, for example because target is busy, it can be called again.
	Detach(ctx context.Context, id, target string) error

	// Recover is called once, before all else: these are the images that
	// should exist, and everything else that an earlier process left
	// attached, or mounted on a target of its own, is to be dropped. It must
	// not wait for a network and returns the ids of those that are attached,
	// of which there may be none. One image that cannot be brought back is
	// left out, which is not an error: the next Attach is for it.
	Recover(ctx context.Context, images []backstore.Attachment) (attached []string, err error)
}

// CacheUser is an optional ability of Devices: it knows what remote layers
// occupy on this node.
type CacheUser interface {
	// CacheUsage returns the bytes held for a blob.
	CacheUsage(blob digest.Digest) int64
}
