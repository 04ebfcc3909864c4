package reference

import (
	"fmt"
	"slices"
	"sort"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// compressed is a layer's stream that knows where its blocks lie in the blob;
// *zfile.Reader is one.
type compressed interface {
	BlockSize() int
	Extent(off, n int64) (start, length int64)
}

// Cost is what the touched blocks take.
type Cost struct {
	// Touched is the device bytes, Compressed the bytes of the ZFile blocks
	// that hold them, each counted once. Zero ranges cost nothing.
	Touched, Compressed int64
}

// Block is a ZFile block of a layer.
type Block struct {
	Layer int
	Index int64
}

// Cost maps the touched device blocks through the image to ZFile blocks.
func (r Result) Cost(img *lsmt.Image) (Cost, error) {
	stored, err := r.Stored(img)
	c := Cost{Touched: int64(len(r.Blocks())) * BlockSize}
	for _, n := range stored {
		c.Compressed += n
	}
	return c, err
}

// Stored returns the ZFile blocks that hold what was touched, and their stored
// lengths in bytes.
func (r Result) Stored(img *lsmt.Image) (map[Block]int64, error) {
	segments := slices.Collect(img.Segments())
	streams := img.Streams()
	stored := map[Block]int64{}
	for b := range r.Blocks() {
		first, last := b*BlockSize/lsmt.SectorSize, (b+1)*BlockSize/lsmt.SectorSize
		i := sort.Search(len(segments), func(i int) bool { return segments[i].Offset+segments[i].Length > first })
		for ; i < len(segments) && segments[i].Offset < last; i++ {
			s := segments[i]
			if s.Zeroed {
				continue
			}
			z, ok := streams[s.Layer].(compressed)
			if !ok {
				return nil, fmt.Errorf("layer %d is not compressed", s.Layer)
			}
			from := (s.Mapped + max(first, s.Offset) - s.Offset) * lsmt.SectorSize
			to := (s.Mapped + min(last, s.Offset+s.Length) - s.Offset) * lsmt.SectorSize
			size := int64(z.BlockSize())
			for n := from / size; n*size < to; n++ {
				_, stored[Block{s.Layer, n}] = z.Extent(n*size, size)
			}
		}
	}
	return stored, nil
}
