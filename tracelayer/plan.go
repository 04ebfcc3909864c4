package tracelayer

import (
	"crypto/sha256"

	"github.com/opencontainers/go-digest"
)

// Plan is what a node that has nothing of an image fetches for a recorded
// start, in order of need.
type Plan struct {
	// Layers are the layers that extents are of, bottom first, without the
	// trace layer.
	Layers []PlanLayer
	// Extents do not overlap.
	Extents []Extent
}

// PlanLayer is a layer as its image's manifest describes it.
type PlanLayer struct {
	Digest digest.Digest
	Size   int64 // bytes
}

// Extent is a range of a layer's blob as it is stored in the registry.
type Extent struct {
	// Layer is an index of Plan.Layers.
	Layer int
	// Off and Size (bytes) are of the blob.
	Off, Size int64
	// Sum is the SHA-256 of the range.
	Sum [sha256.Size]byte
	// Stored is how many bytes the range takes in the data, where it follows
	// the extents before it: Size if it is stored as it is, less if it is one
	// zstd frame, 0 if it is not in the data.
	Stored int64
}

// Member says where the plan lies in the blob of a trace layer.
type Member struct {
	Offset, Size int64 // bytes
	Digest       digest.Digest
}
