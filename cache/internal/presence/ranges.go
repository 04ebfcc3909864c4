package presence

import (
	"iter"
	"slices"
)

// Ranges is what is present of one run. It never changes, so that who has it
// may look at it without a lock; a nil *Ranges is an empty one.
type Ranges struct {
	// bounds are the places, in bytes from the start of the run, where
	// present begins and absent begins, in turns and ascending. Their number
	// is even: what is present ends with the run at the latest.
	bounds []uint32
}

// nearby is how many bounds are looked at one by one before the search halves.
const nearby = 16

// notAbove returns how many of bounds are at most x. An odd number says that x
// is in a range.
//
// It is what a hit costs here. Halving from the middle on, each look at a run
// of hundreds of bounds would be one at memory that is not at hand, on a path
// that can't be predicted. But compressed blocks are about evenly spread, so
// the right place is close to where x is in the run (BenchmarkHasBlock).
func notAbove(bounds []uint32, x uint32) int {
	lo, hi := 0, len(bounds)
	k := min(int(uint64(x)*uint64(len(bounds))/Run), len(bounds))
	if k < len(bounds) && bounds[k] <= x {
		end := min(len(bounds), k+nearby)
		for k < end && bounds[k] <= x {
			k++
		}
		if k < end {
			return k
		}
		lo = k
	} else {
		end := max(0, k-nearby)
		for k > end && bounds[k-1] > x {
			k--
		}
		if k > end {
			return k
		}
		hi = k
	}
	for lo < hi {
		if mid := (lo + hi) / 2; bounds[mid] <= x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// below returns how many of bounds are less than x.
func below(bounds []uint32, x uint32) int {
	if x == 0 {
		return 0
	}
	return notAbove(bounds, x-1)
}

func (r *Ranges) value() Ranges {
	if r == nil {
		return Ranges{}
	}
	return *r
}

// Empty reports whether nothing is present.
func (r Ranges) Empty() bool { return len(r.bounds) == 0 }

// Blocks returns the number of blocks that hold something.
func (r Ranges) Blocks() int64 {
	blocks, _ := r.count(0, Run)
	return blocks
}

// Content returns the number of bytes present.
func (r Ranges) Content() int64 {
	_, content := r.count(0, Run)
	return content
}

// all yields the ranges.
func (r Ranges) all() iter.Seq2[uint32, uint32] {
	return func(yield func(from, to uint32) bool) {
		for k := 0; k < len(r.bounds); k += 2 {
			if !yield(r.bounds[k], r.bounds[k+1]) {
				return
			}
		}
	}
}

// extent reports whether the byte at x is present and up to where those after
// it are the same, at most to the end of the run.
func (r *Ranges) extent(x uint32) (present bool, until uint32) {
	if r == nil {
		return false, Run
	}
	k := notAbove(r.bounds, x)
	if k == len(r.bounds) {
		return false, Run
	}
	return k%2 == 1, r.bounds[k]
}

// count returns the number of blocks that hold something of [from, to), and the
// bytes of it that are present.
func (r *Ranges) count(from, to uint32) (blocks, content int64) {
	if r == nil {
		return 0, 0
	}
	next := uint32(0) // the first block not yet counted
	for k := notAbove(r.bounds, from) &^ 1; k < len(r.bounds) && r.bounds[k] < to; k += 2 {
		start, end := max(r.bounds[k], from), min(r.bounds[k+1], to)
		content += int64(end - start)
		first, last := max(start/Block, next), (end-1)/Block
		blocks += int64(last+1) - int64(first)
		next = last + 1
	}
	return blocks, content
}

// gain returns by how much r, which is old changed within [from, to), holds
// something of more blocks than old, and more bytes.
func (r *Ranges) gain(old *Ranges, from, to uint32) (blocks, content int64) {
	// What is forgotten of a crowded block is so short that it ends in the
	// next one at the latest.
	from -= min(from, from%Block+Block)
	to = min((to+Block-1)/Block*Block+Block, Run)
	blocks, content = r.count(from, to)
	b, c := old.count(from, to)
	return blocks - b, content - c
}

// with returns r with [from, to) present or absent, nil if nothing is left.
func (r *Ranges) with(from, to uint32, present bool) *Ranges {
	old := r.value().bounds
	i, j := below(old, from), notAbove(old, to)
	now := append(make([]uint32, 0, i+2+len(old)-j), old[:i]...)
	// Before a bound of even index is an absent byte, before one of odd index
	// a present one. A new bound is needed where that has to change.
	if i%2 == 1 != present {
		now = append(now, from)
	}
	if j%2 == 1 != present {
		now = append(now, to)
	}
	now = append(now, old[j:]...)
	now = thin(thin(now, from), to-1)
	if len(now) == 0 {
		return nil
	}
	return &Ranges{now}
}

// thin removes the shortest ranges that have a part in the block of x until
// there are no more than BlockRanges of them. It changes bounds.
func thin(bounds []uint32, x uint32) []uint32 {
	start := x / Block * Block
	for {
		first, end := notAbove(bounds, start)&^1, below(bounds, start+Block)
		if (end-first+1)/2 <= BlockRanges {
			return bounds
		}
		shortest := first
		for k := first; k < end; k += 2 {
			if bounds[k+1]-bounds[k] < bounds[shortest+1]-bounds[shortest] {
				shortest = k
			}
		}
		bounds = slices.Delete(bounds, shortest, shortest+2)
	}
}
