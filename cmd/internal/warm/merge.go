package warm

import (
	"cmp"
	"slices"

	"github.com/reprise-containers/reprise/cache/fill"
)

// batch is within how many extents in order of need the order is given up for
// fewer requests.
const batch = 512

// merge makes fewer extents of many: of each batch, those that lie beside each
// other become one, in order of their offsets.
func merge(extents []fill.Extent) []fill.Extent {
	var out []fill.Extent
	for part := range slices.Chunk(extents, batch) {
		part = slices.SortedFunc(slices.Values(part), func(a, b fill.Extent) int { return cmp.Compare(a.Off, b.Off) })
		start := len(out)
		for _, e := range part {
			if n := len(out); n > start && e.Off-out[n-1].End <= mergeGap {
				out[n-1].End = max(out[n-1].End, e.End)
				continue
			}
			out = append(out, e)
		}
	}
	return out
}
