package replay

import (
	"github.com/reprise-containers/reprise/tracelayer"
)

// choose returns what is to be fetched by the data and what by ranges, both in
// order of need. What is skipped is counted.
func (r *run) choose() (streamed, ranged []item) {
	uses := make(map[*Use][]*mark)
	var at, total int64
	for _, e := range r.Plan.Extents {
		i := item{Extent: e, at: at}
		at += e.Stored
		if !r.fits(e) {
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
			i.mark = &mark{off: e.Off, end: i.end()}
			uses[t.Use] = append(uses[t.Use], i.mark)
		}
		if t.Stage != nil && !t.Stage.Rejected() && r.Data != nil && e.Stored > 0 {
			streamed = append(streamed, i)
		} else {
			ranged = append(ranged, i)
		}
	}
	for u, marks := range uses {
		u.watch(watch{marks: marks, o: r.Observer, count: r.count})
	}
	return streamed, ranged
}

func (r *run) skip(why Skipped, n int64) {
	r.count.skipped[why].add(n)
	r.Observer.Skipped(why, n)
}

// fits reports whether an extent lies in a layer that there is.
func (r *run) fits(e tracelayer.Extent) bool {
	if e.Layer >= len(r.Targets) || r.Targets[e.Layer].Blob == nil {
		return false
	}
	return e.Off <= r.Targets[e.Layer].Blob.Size()-e.Size
}
