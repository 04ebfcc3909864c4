package lsmt

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/reprise-containers/reprise/remote/blob"
)

// MaxLayers is how many layers the format can stack.
const MaxLayers = 255

// MaxSegments is how many segments an Image may have: 256 MiB of index. The
// format allows more, but an image of 50 GB has some ten thousand.
const MaxSegments = 16 << 20

// Image is a stack of layers, merged: a device.Device. It holds one index of
// 17 bytes a segment, however many layers it was made from, and is immutable.
type Image struct {
	index index
	files []blob.ReaderAt // streams of the layers, bottom first
	size  int64

	// absent is the number of the last segment that Local found absent.
	absent atomic.Int64
}

// Stack merges layers, bottom first, into an Image. The layers are not needed
// after that.
func Stack(layers []*Layer) (*Image, error) {
	if len(layers) == 0 {
		return nil, errors.New("stacking layers: there are none")
	}
	if len(layers) > MaxLayers {
		return nil, fmt.Errorf("stacking layers: %d are more than the %d the format can stack", len(layers), MaxLayers)
	}
	m := &Image{files: make([]blob.ReaderAt, len(layers))}
	segments := 0
	for i, l := range layers {
		m.files[i] = l.r
		segments += len(l.entries)
		if l.id.VirtualSize != 0 {
			m.size = l.id.VirtualSize // the topmost one that has a size counts
		}
	}
	switch {
	case m.size == 0:
		return nil, errors.New("stacking layers: none has a virtual size")
	case m.size%SectorSize != 0:
		return nil, fmt.Errorf("stacking layers: virtual size %d is not a multiple of %d", m.size, SectorSize)
	case segments > MaxSegments:
		return nil, fmt.Errorf("stacking layers: %d segments exceed the limit of %d", segments, MaxSegments)
	}
	m.index = newIndex(mergeLayers(layers, 0))
	return m, nil
}

// Size returns the size of the virtual disk in bytes.
func (m *Image) Size() int64 { return m.size }

// Len returns the number of segments.
func (m *Image) Len() int { return m.index.len() }

// Segments returns the segments in order.
func (m *Image) Segments() iter.Seq[Segment] { return segments(m.index.all()) }

// Streams returns the uncompressed streams of the layers, bottom first: what
// Segment.Layer counts and Segment.Mapped points into.
func (m *Image) Streams() []blob.ReaderAt { return slices.Clone(m.files) }

// LayerStats says what one layer contributes to an Image.
type LayerStats struct {
	Name     string
	Segments int   // visible ones
	Mapped   int64 // bytes of the disk that read from it
	Zeroed   int64 // bytes of the disk that it makes read as zeros
	Stream   int64 // bytes of its stream
}

// Layers returns statistics by layer, bottom first.
func (m *Image) Layers() []LayerStats {
	stats := make([]LayerStats, len(m.files))
	for i, f := range m.files {
		stats[i].Name, stats[i].Stream = blob.Name(f), f.Size()
	}
	for s := range m.Segments() {
		l := &stats[s.Layer]
		l.Segments++
		if s.Zeroed {
			l.Zeroed += s.Length * SectorSize
		} else {
			l.Mapped += s.Length * SectorSize
		}
	}
	return stats
}
