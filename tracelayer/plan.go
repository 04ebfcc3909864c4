package tracelayer

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Bounds of a plan. They keep what a plan of strangers makes a reader allocate
// within reason, and sums of sizes within an int64.
const (
	// MaxExtents is the largest number of extents: 1 GiB that is read in pieces
	// of 4 KiB at random. Decoded they take 16 MiB, and as much while they are
	// fetched.
	MaxExtents = 256 << 10
	// MaxPlan is the longest encoded plan, in bytes. No valid one is longer.
	MaxPlan = 16 << 20
	// MaxPlanLayers is the largest number of layers; overlaybd stacks 255.
	MaxPlanLayers = 1024
	// MaxLayerSize is the largest size of a layer, in bytes.
	MaxLayerSize = 1 << 48
	// MaxExtent is the largest size of an extent, in bytes: its sum is
	// compared before any of it is used, so that much is held in memory.
	MaxExtent = 4 << 20
)

// Plan is what a node that has nothing of an image fetches for a recorded
// start, in order of need.
type Plan struct {
	// Layers are the layers that extents are of, bottom first, without the
	// trace layer.
	Layers []PlanLayer
	// Extents do not overlap, not even if their layers are two that are equal.
	Extents []Extent
}

// PlanLayer is a layer as its image's manifest describes it.
type PlanLayer struct {
	Digest digest.Digest // SHA-256
	Size   int64         // bytes
}

// Extent is a range of a layer's blob as it is stored in the registry.
type Extent struct {
	// Layer is an index of Plan.Layers.
	Layer int
	// Off and Size (bytes) are of the blob. Size is 1 to MaxExtent.
	Off, Size int64
	// Sum is the SHA-256 of the range.
	Sum [sha256.Size]byte
	// Stored is how many bytes the range takes in the data, where it follows
	// the extents before it: Size if it is stored as it is, less if it is one
	// zstd frame (Unpack), 0 if it is not in the data.
	Stored int64
}

// Member says where the plan lies in the blob of a trace layer.
type Member struct {
	Offset, Size int64 // bytes
	Digest       digest.Digest
}

// DataSize returns how many bytes the data of p have.
func (p *Plan) DataSize() int64 {
	var n int64
	for _, e := range p.Extents {
		n += e.Stored
	}
	return n
}

// Size returns how many bytes of the layers' blobs the extents of p cover.
func (p *Plan) Size() int64 {
	var n int64
	for _, e := range p.Extents {
		n += e.Size
	}
	return n
}

// Validate reports what makes p impossible: layers or extents out of bounds, or
// extents that overlap.
func (p *Plan) Validate() error {
	if len(p.Layers) > MaxPlanLayers {
		return fmt.Errorf("plan has %d layers, more than %d", len(p.Layers), MaxPlanLayers)
	}
	if len(p.Extents) > MaxExtents {
		return fmt.Errorf("plan has %d extents, more than %d", len(p.Extents), MaxExtents)
	}
	for i, l := range p.Layers {
		if err := l.validate(); err != nil {
			return fmt.Errorf("layer %d of the plan: %w", i, err)
		}
	}
	for i, e := range p.Extents {
		if err := p.validateExtent(e); err != nil {
			return fmt.Errorf("extent %d of the plan: %w", i, err)
		}
	}
	return p.validateDisjoint()
}

func (l PlanLayer) validate() error {
	if err := l.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", l.Digest, err)
	}
	switch {
	case l.Digest.Algorithm() != digest.SHA256:
		return fmt.Errorf("digest %s is not SHA-256", l.Digest)
	case l.Size < 0 || l.Size > MaxLayerSize:
		return fmt.Errorf("size %d is not within 0 and %d", l.Size, int64(MaxLayerSize))
	}
	return nil
}

func (p *Plan) validateExtent(e Extent) error {
	switch {
	case e.Layer < 0 || e.Layer >= len(p.Layers):
		return fmt.Errorf("of layer %d, there are %d", e.Layer, len(p.Layers))
	case e.Size < 1 || e.Size > MaxExtent:
		return fmt.Errorf("size %d is not within 1 and %d", e.Size, MaxExtent)
	case e.Off < 0 || e.Off > p.Layers[e.Layer].Size-e.Size:
		return fmt.Errorf("%d bytes at offset %d are not in a layer of %d", e.Size, e.Off, p.Layers[e.Layer].Size)
	case e.Stored < 0 || e.Stored > e.Size:
		return fmt.Errorf("%d bytes take %d in the data", e.Size, e.Stored)
	}
	return nil
}

func (p *Plan) validateDisjoint() error {
	first := p.firstEqual()
	order := make([]int32, len(p.Extents))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := &p.Extents[a], &p.Extents[b]
		return cmp.Or(cmp.Compare(first[x.Layer], first[y.Layer]), cmp.Compare(x.Off, y.Off))
	})
	for i := 1; i < len(order); i++ {
		a, b := p.Extents[order[i-1]], p.Extents[order[i]]
		if first[a.Layer] == first[b.Layer] && a.Off+a.Size > b.Off {
			return fmt.Errorf("extents %d and %d of the plan overlap at offset %d of layer %d",
				order[i-1], order[i], b.Off, b.Layer)
		}
	}
	return nil
}

// firstEqual returns for each layer the index of the first that equals it: an image
// may have one twice, whose bytes are the same ones.
func (p *Plan) firstEqual() []int {
	index := make(map[PlanLayer]int)
	first := make([]int, len(p.Layers))
	for i, l := range p.Layers {
		if _, ok := index[l]; !ok {
			index[l] = i
		}
		first[i] = index[l]
	}
	return first
}
