package fetchplan

import (
	"context"
	"io"
	"iter"

	"github.com/reprise-containers/reprise/tracelayer"
)

// BuildMost is Build for at most some extents, about.
func BuildMost(ctx context.Context, layers []Layer, t tracelayer.Trace, data io.Writer, most int) (*tracelayer.Plan, int, error) {
	return build(ctx, layers, t, data, most)
}

// MapMost is Map for at most some extents, about.
func MapMost(ctx context.Context, layers []Layer, t tracelayer.Trace, most int) (*tracelayer.Plan, int, error) {
	return mapped(ctx, layers, t, most)
}

// Marks is marks.
type Marks struct{ m marks }

// NewMarks returns an empty set of numbers below n.
func NewMarks(n int64) *Marks { return &Marks{newMarks(n)} }

// Take is marks.take.
func (m *Marks) Take(from, to int64) iter.Seq2[int64, int64] { return m.m.take(from, to) }

// Cover is cover.
type Cover struct{ c cover }

// Add is cover.add, with offsets instead of spans.
func (c *Cover) Add(off, end int64) [][2]int64 { return pairs(c.c.add(span{off, end})) }

// All is cover.all.
func (c *Cover) All() [][2]int64 { return pairs(c.c.all()) }

func pairs(spans []span) (out [][2]int64) {
	for _, s := range spans {
		out = append(out, [2]int64{s.off, s.end})
	}
	return out
}
