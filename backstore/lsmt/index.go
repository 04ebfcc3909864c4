package lsmt

import "iter"

// fanout is the number of keys in a node of an index: a cache line.
const fanout = 8

// index holds merged entries and finds the one of a sector. It is an implicit
// B+ tree: the keys of the entries in one sorted array, cut into nodes of
// fanout keys, and above it levels made of the first key of each node below.
// A search counts in one node a level how many keys are not greater, which
// needs no branch that depends on the data. It is immutable and takes 17
// bytes an entry.
type index struct {
	levels [][]uint64 // keys, root first; the last level has all of them
	to     []uint64   // the other half of each entry
}

// newIndex builds the index of sorted, disjoint entries.
func newIndex(entries []entry) index {
	x := index{to: make([]uint64, len(entries))}
	level := newLevel(len(entries))
	for i, e := range entries {
		level[i], x.to[i] = e.key, e.to
	}
	x.levels = [][]uint64{level}
	for len(level) > fanout {
		upper := newLevel(len(level) / fanout)
		for i := range len(level) / fanout {
			upper[i] = level[i*fanout]
		}
		x.levels = append([][]uint64{upper}, x.levels...)
		level = upper
	}
	return x
}

// newLevel returns room for n keys, filled up to whole nodes with keys greater
// than any that is searched.
func newLevel(n int) []uint64 {
	level := make([]uint64, (n+fanout-1)/fanout*fanout)
	for i := n; i < len(level); i++ {
		level[i] = ^uint64(0)
	}
	return level
}

// len returns the number of entries.
func (x *index) len() int { return len(x.to) }

// at returns entry i.
func (x *index) at(i int) entry {
	return entry{key: x.levels[len(x.levels)-1][i], to: x.to[i]}
}

// all returns the entries in order.
func (x *index) all() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i := range x.to {
			if !yield(x.at(i)) {
				return
			}
		}
	}
}

// find returns the number of the first entry that ends after sector, or the
// number of entries if there is none.
func (x *index) find(sector uint64) int {
	if len(x.to) == 0 {
		return 0
	}
	key := sector<<lengthBits | maxLength // not less than an entry that starts at sector
	i := 0
	for _, level := range x.levels {
		node := (*[fanout]uint64)(level[i*fanout:])
		i = i*fanout + max(notGreater(node, key), 1) - 1
	}
	// Entry i is the last that starts at or before sector, or the first.
	if x.at(i).end() > sector {
		return i
	}
	return i + 1
}

// notGreater returns how many keys are not greater than key. Written out and
// with two counters, because the compiler turns that into comparisons without
// branches that run side by side.
func notGreater(node *[fanout]uint64, key uint64) int {
	even, odd := 0, 0
	if node[0] <= key {
		even++
	}
	if node[1] <= key {
		odd++
	}
	if node[2] <= key {
		even++
	}
	if node[3] <= key {
		odd++
	}
	if node[4] <= key {
		even++
	}
	if node[5] <= key {
		odd++
	}
	if node[6] <= key {
		even++
	}
	if node[7] <= key {
		odd++
	}
	return even + odd
}
