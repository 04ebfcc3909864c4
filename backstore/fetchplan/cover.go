package fetchplan

import (
	"cmp"
	"maps"
	"slices"
)

// span is the bytes [off, end) of a blob or stream.
type span struct{ off, end int64 }

func (s span) size() int64 { return s.end - s.off }

// coverPage is how many bytes of a blob one list of a cover is for. Lists stay
// short enough to be changed in place, whatever the order of reads.
const coverPage = 64 << 10

// cover is a set of bytes of a blob. The zero value is empty.
type cover struct {
	pages map[int64][]span // sorted, apart from each other
}

// add adds s and returns the parts of it that were not there.
func (c *cover) add(s span) []span {
	if c.pages == nil {
		c.pages = make(map[int64][]span)
	}
	var fresh []span
	for s.off < s.end {
		page := s.off / coverPage
		part := span{s.off, min(s.end, (page+1)*coverPage)}
		c.pages[page], fresh = insert(c.pages[page], part, fresh)
		s.off = part.end
	}
	return fresh
}

// insert adds s to the sorted list and appends the parts of it that were not in it
// to fresh, joined to its last if they go on there.
func insert(list []span, s span, fresh []span) (_, _ []span) {
	i, _ := slices.BinarySearchFunc(list, s.off, func(l span, off int64) int {
		if l.end < off {
			return -1
		}
		return 1
	})
	j, at, all := i, s.off, s
	for ; j < len(list) && list[j].off <= s.end; j++ {
		fresh = appendSpan(fresh, span{at, list[j].off})
		at = max(at, list[j].end)
		all = span{min(all.off, list[j].off), max(all.end, list[j].end)}
	}
	fresh = appendSpan(fresh, span{at, s.end})
	return slices.Replace(list, i, j, all), fresh
}

// appendSpan appends s, unless it is empty, or makes the last of list longer.
func appendSpan(list []span, s span) []span {
	switch k := len(list) - 1; {
	case s.size() <= 0:
		return list
	case k >= 0 && list[k].end == s.off:
		list[k].end = s.end
		return list
	}
	return append(list, s)
}

// all returns what is in c, in order.
func (c *cover) all() []span {
	var all []span
	for _, page := range slices.Sorted(maps.Keys(c.pages)) {
		for _, s := range c.pages[page] {
			all = appendSpan(all, s)
		}
	}
	return all
}

// sorted returns the spans of list, which do not overlap, in order and joined.
func sorted(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	joined := list[:0]
	for _, s := range list {
		joined = appendSpan(joined, s)
	}
	return joined
}
