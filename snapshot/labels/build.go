package labels

// Keys that builders of images use.
const (
	// VirtualSize is the size in GB of a new bottom layer that is written to.
	VirtualSize = prefix + "overlaybd/vsize"
	// LocalCommitPath is the file of a layer that was written to and committed.
	// The snapshotter sets it.
	LocalCommitPath = prefix + "overlaybd.localcommitpath"
)
