package snapshot

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/lsmt"
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
	// fails, for example because target is busy, it can be called again. What
	// was written is durable afterwards.
	Detach(ctx context.Context, id, target string) error

	// Recover is called once, before all else: these are the images that
	// should exist, those without a target as loop devices, and everything else
	// that an earlier process left attached is to be dropped. It must
	// not wait for a network and returns the ids of those that are attached,
	// of which there may be none. One image that cannot be brought back is
	// left out, which is not an error: the next Attach is for it.
	Recover(ctx context.Context, images []backstore.Attachment) (attached []string, err error)
}

// Writer is an optional ability of Devices: images that are written.
type Writer interface {
	// AttachWritable is Attach of an image with an Upper, so that it can be
	// written, as opts say. The error wraps attach.ErrReadOnlyFS if the file
	// system in the image can't.
	AttachWritable(ctx context.Context, id string, img backstore.Image, opts attach.WritableOptions) (attach.LoopDevice, error)

	// Device returns a loop device of img, which can't be written. Detach undoes
	// it.
	Device(ctx context.Context, id string, img backstore.Image) (attach.LoopDevice, error)

	// Freeze calls during with what was written to device id up to now, as one
	// consistent state of the file system in it.
	Freeze(ctx context.Context, id string, during func(ctx context.Context, l *lsmt.Layer) error) error

	// LoopID returns the id of what has the loop device dev, "" if that is none of
	// the devices.
	LoopID(dev string) (id string, err error)

	// FSType returns the type of the file system of device id, which is mounted,
	// "" if it is not.
	FSType(id string) (string, error)
}

// Prefetcher is an optional ability of Devices: it fetches what an image needs
// before somebody waits for it.
type Prefetcher interface {
	// Prefetch is told of an image that is being pulled or attached. It returns
	// at once, and nobody learns what comes of it. While an image is pulled,
	// layers above may still be missing; it is told again with them.
	Prefetch(img backstore.Image)
}

// Recorder is an optional ability of Devices: it records what is read of an
// image, for a trace.
type Recorder interface {
	// Wanted reports whether containers on the image ref are to be recorded
	// without being asked.
	Wanted(ref string) bool

	// Record is Attach, with another device than the image has, from whose
	// reads a trace is made until Detach at the latest. If opts can not be
	// met, nothing is left attached.
	Record(ctx context.Context, id string, img backstore.Image, target string, opts RecordOptions) error

	// Abandon is called, after Recover, for a recording of an earlier process,
	// whose attachment may go on without it.
	Abandon(id string, opts RecordOptions)
}

// RecordOptions say what is to become of a recording.
type RecordOptions struct {
	// Asked says that a label of the container asks for it, and not the node.
	Asked bool
	// File is the empty file that takes the trace, "" if the node is to choose
	// one.
	File string
}

// CacheUser is an optional ability of Devices: it knows what remote layers
// occupy on this node.
type CacheUser interface {
	// CacheUsage returns the bytes held for a blob.
	CacheUsage(blob digest.Digest) int64
}
