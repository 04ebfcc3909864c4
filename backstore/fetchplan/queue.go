package fetchplan

import (
	"cmp"
	"context"
	"slices"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
	"github.com/reprise-containers/reprise/tracelayer"
)

const (
	// maxExtent is the size in bytes to which extents grow when the next bytes
	// needed are the next in the blob.
	maxExtent = 256 << 10
	// groupSize is up to how many bytes of blobs are put in the order in which
	// they lie there, after the pages of chunk tables that they need. Which of
	// them comes first makes no difference, because so much is on its way at any
	// time; but a start of many small reads has 40 % fewer extents.
	groupSize = 64 << 10
	// maxExtents is when a plan has enough. The reads of a record and of a group
	// may add a few more.
	maxExtents = tracelayer.MaxExtents - 4<<10
)

// queue puts what is needed in order. Each byte of a layer is entered once.
type queue struct {
	layers []Layer
	most   int // extents
	covers []cover
	group  struct {
		tables, data []tracelayer.Extent
		size         int64 // of data
	}
	out []tracelayer.Extent
}

func newQueue(layers []Layer, most int) *queue {
	return &queue{layers: layers, most: most, covers: make([]cover, len(layers))}
}

// crowded reports whether nothing more is to be entered.
func (q *queue) crowded() bool {
	return len(q.out)+len(q.group.data)+len(q.group.tables) >= q.most
}

// tableFrom returns where in layer i its chunk table begins.
func (q *queue) tableFrom(i int) int64 {
	if t := q.layers[i].Table; !t.IsZero() && !t.Detached() {
		return t.Offset
	}
	return q.layers[i].Size
}

// header enters what opening layer i reads: the table first, the start last. Who
// verifies a read of the start before any other takes in some bytes behind it.
func (q *queue) header(i int, pieces []span) {
	place := func(s span) int {
		switch {
		case s.off >= q.tableFrom(i):
			return 0
		case s.off > 0:
			return 1
		}
		return 2
	}
	slices.SortFunc(pieces, func(a, b span) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.off, b.off))
	})
	for _, s := range pieces {
		for _, s := range q.covers[i].add(s) {
			q.out = appendExtent(q.out, i, s, 0)
		}
	}
}

// read reads s of layer i and enters what that reads of its blob.
func (q *queue) read(ctx context.Context, o *opened, i int, s span) error {
	piece := max(o.unit, readPiece/o.unit*o.unit)
	p := scratch.Borrow(int(min(piece, s.size())))
	defer scratch.Return(p)
	for s.off < s.end {
		n := min(piece, s.size())
		if err := blob.ReadFull(ctx, o.stream, (*p)[:n], s.off); err != nil {
			return err
		}
		var fresh []span
		for _, b := range o.log.take() {
			fresh = append(fresh, q.covers[i].add(b)...)
		}
		q.enter(i, sorted(fresh))
		s.off += n
	}
	return nil
}

// enter enters what one read needs of layer i.
func (q *queue) enter(i int, needed []span) {
	for _, s := range needed {
		if s.off >= q.tableFrom(i) {
			q.group.tables = appendExtent(q.group.tables, i, s, 0)
			continue
		}
		q.group.data = appendExtent(q.group.data, i, s, maxExtent)
		q.group.size += s.size()
	}
	if q.group.size >= groupSize {
		q.endGroup()
	}
}

// endGroup puts pages of tables before the bytes that they verify, and neighbours
// beside each other.
func (q *queue) endGroup() {
	g := &q.group
	for _, list := range [2][]tracelayer.Extent{g.tables, g.data} {
		slices.SortFunc(list, func(a, b tracelayer.Extent) int {
			return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Off, b.Off))
		})
		for _, e := range list {
			q.out = appendExtent(q.out, e.Layer, span{e.Off, e.Off + e.Size}, maxExtent)
		}
	}
	g.tables, g.data, g.size = g.tables[:0], g.data[:0], 0
}

// extents ends the plan and returns it.
func (q *queue) extents() []tracelayer.Extent {
	q.endGroup()
	return q.out
}

// appendExtent appends s of layer i, or makes the last extent longer if s goes on
// there and it then has at most join bytes.
func appendExtent(list []tracelayer.Extent, i int, s span, join int64) []tracelayer.Extent {
	if k := len(list) - 1; k >= 0 {
		last := &list[k]
		if last.Layer == i && last.Off+last.Size == s.off && last.Size+s.size() <= join {
			last.Size += s.size()
			return list
		}
	}
	for s.off < s.end {
		n := min(s.size(), tracelayer.MaxExtent)
		list = append(list, tracelayer.Extent{Layer: i, Off: s.off, Size: n})
		s.off += n
	}
	return list
}
