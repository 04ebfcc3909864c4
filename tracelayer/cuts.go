package tracelayer

import (
	"maps"
	"slices"
)

// cuts divides what traces read into segments, such that each read covers
// segments as a whole. Segments have numbers: those of a layer follow each other
// in the order of the stream, with one at the end that stands for no bytes.
type cuts struct {
	layers map[uint32]*layerCuts
	order  []*layerCuts // by layer
	total  int          // segments
}

type layerCuts struct {
	layer  uint32
	first  int     // segment that begins at bounds[0]
	bounds []int64 // offsets, ascending
}

// newCuts returns the cuts of all sound records of traces.
func newCuts(traces ...Trace) *cuts {
	c := &cuts{layers: map[uint32]*layerCuts{}}
	for _, t := range traces {
		for _, r := range t {
			if !r.Sound() {
				continue
			}
			l := c.layers[r.Layer]
			if l == nil {
				l = &layerCuts{layer: r.Layer}
				c.layers[r.Layer] = l
			}
			l.bounds = append(l.bounds, r.Off, r.Off+r.Count)
		}
	}
	for _, layer := range slices.Sorted(maps.Keys(c.layers)) {
		l := c.layers[layer]
		slices.Sort(l.bounds)
		l.bounds = slices.Compact(l.bounds)
		l.first = c.total
		c.total += len(l.bounds)
		c.order = append(c.order, l)
	}
	return c
}

// size returns how many bytes segment i of l has.
func (l *layerCuts) size(i int) int64 { return l.bounds[i-l.first+1] - l.bounds[i-l.first] }

// walk calls visit for each segment that t, which must be one of the traces of
// c, reads, once, in the order of the records, with the number of the first
// record that reads it.
func (c *cuts) walk(t Trace, visit func(record int, l *layerCuts, segment int)) {
	// next[i] leads to the first segment from i on that was not visited:
	// sets of visited segments, joined, with shortened paths.
	next := make([]int32, c.total+1)
	for i := range next {
		next[i] = int32(i)
	}
	unvisited := func(i int) int {
		for int(next[i]) != i {
			next[i] = next[next[i]]
			i = int(next[i])
		}
		return i
	}
	for n, r := range t {
		if !r.Sound() {
			continue
		}
		l := c.layers[r.Layer]
		from, _ := slices.BinarySearch(l.bounds, r.Off)
		to, _ := slices.BinarySearch(l.bounds, r.Off+r.Count)
		for i := unvisited(l.first + from); i < l.first+to; i = unvisited(i) {
			visit(n, l, i)
			next[i] = int32(i + 1)
		}
	}
}

// Fresh returns for each record of t how many of its bytes no record before it
// read.
func (t Trace) Fresh() []int64 {
	fresh := make([]int64, len(t))
	newCuts(t).walk(t, func(record int, l *layerCuts, segment int) {
		fresh[record] += l.size(segment)
	})
	return fresh
}
