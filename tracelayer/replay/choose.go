package replay

import (
	"cmp"
	"slices"

	"github.com/reprise-containers/reprise/tracelayer"
)

// choose returns what is to be fetched by the data and what by ranges, both in
// order of need. What is skipped is counted.
func (r *run) choose() (streamed, ranged []item) {
	valid := r.valid()
	uses := make(map[*Use][]*mark)
	var at, total int64
	for k, e := range r.Plan.Extents {
		i := item{Extent: e, at: at}
		if at >= 0 {
			at += e.Stored
		}
		if !valid[k] {
			r.skip(SkippedInvalid, e.Size)
			continue
		}
		if total += e.Size; r.Budget > 0 && total > r.Budget {
			r.skip(SkippedBudget, e.Size)
			continue
		}
		if r.present(e) {
			r.skip(SkippedPresent, e.Size)
			continue
		}
		t := r.Targets[e.Layer]
		if t.Use != nil {
			i.mark = &mark{off: e.Off, end: i.end(), count: &r.count, o: r.Observer}
			uses[t.Use] = append(uses[t.Use], i.mark)
		}
		if t.Stage != nil && r.Data != nil && e.Stored > 0 {
			streamed = append(streamed, i)
		} else {
			ranged = append(ranged, i)
		}
	}
	for u, marks := range uses {
		u.watch(marks)
	}
	return streamed, ranged
}

func (r *run) skip(why Skipped, n int64) {
	r.count.skipped[why].add(max(n, 0))
	r.Observer.Skipped(why, max(n, 0))
}

// valid reports which extents of the plan can be right. A plan that was decoded
// has no others but those of layers that the image does not have.
//
// An extent whose place in the data can not be right makes those of all later
// ones unknown: they, too, are taken for invalid.
func (r *run) valid() []bool {
	ok := make([]bool, len(r.Plan.Extents))
	var order []int32
	for k, e := range r.Plan.Extents {
		if e.Size < 1 || e.Size > tracelayer.MaxExtent || e.Stored < 0 || e.Stored > e.Size {
			if e.Stored != 0 {
				break
			}
			continue
		}
		if e.Layer < 0 || e.Layer >= len(r.Targets) || r.Targets[e.Layer].Blob == nil {
			continue
		}
		if e.Off < 0 || e.Off > r.Targets[e.Layer].Blob.Size()-e.Size {
			continue
		}
		ok[k] = true
		order = append(order, int32(k))
	}
	extents := r.Plan.Extents
	slices.SortStableFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(extents[a].Layer, extents[b].Layer), cmp.Compare(extents[a].Off, extents[b].Off))
	})
	last := -1
	for _, k := range order {
		if e := extents[k]; last >= 0 && extents[last].Layer == e.Layer && extents[last].Off+extents[last].Size > e.Off {
			ok[k] = false
			continue
		}
		last = int(k)
	}
	return ok
}
