package lsmt

import (
	"iter"
	"slices"
	"sort"
)

const (
	leafSize = 256          // entries in a leaf: 4 KiB
	leafLow  = leafSize / 4 // a leaf with fewer is joined with a neighbour
)

// live is an index that changes: what a writable layer holds at the moment. It
// is a sorted array of disjoint entries, cut into leaves, with an array of
// their first keys above them. A change moves one leaf; the array above, a
// thousandth of the whole, moves only when a leaf is cut or goes. It takes 16
// to 32 bytes an entry, and has no lock of its own.
type live struct {
	keys   []uint64  // the key of the first entry of each leaf
	leaves [][]entry // none is empty
	n      int       // entries
	stored uint64    // sectors that entries map to, zeroed ones left out
}

// place is where an entry is, or would be.
type place struct{ leaf, at int }

// find returns the place of the first entry that ends after sector.
func (x *live) find(sector uint64) place {
	key := sector<<lengthBits | maxLength // not less than an entry that starts at sector
	// The last leaf that starts at or before sector, or the first.
	leaf := max(sort.Search(len(x.keys), func(i int) bool { return x.keys[i] > key })-1, 0)
	if leaf == len(x.leaves) {
		return place{leaf, 0}
	}
	entries := x.leaves[leaf]
	at := max(sort.Search(len(entries), func(i int) bool { return entries[i].key > key })-1, 0)
	if entries[at].end() <= sector {
		at++
	}
	if at == len(entries) {
		return place{leaf + 1, 0}
	}
	return place{leaf, at}
}

// at returns the entry at p, and false behind the last.
func (x *live) at(p place) (entry, bool) {
	if p.leaf >= len(x.leaves) {
		return entry{}, false
	}
	return x.leaves[p.leaf][p.at], true
}

// next returns the place after p.
func (x *live) next(p place) place {
	if p.at+1 < len(x.leaves[p.leaf]) {
		return place{p.leaf, p.at + 1}
	}
	return place{p.leaf + 1, 0}
}

// prev returns the place before p, and false at the start.
func (x *live) prev(p place) (place, bool) {
	if p.at > 0 {
		return place{p.leaf, p.at - 1}, true
	}
	if p.leaf == 0 {
		return p, false
	}
	return place{p.leaf - 1, len(x.leaves[p.leaf-1]) - 1}, true
}

// from returns the entries that end after sector, in order. The index must not
// change meanwhile.
func (x *live) from(sector uint64) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for p := x.find(sector); ; p = x.next(p) {
			e, ok := x.at(p)
			if !ok || !yield(e) {
				return
			}
		}
	}
}

// entries returns a copy of all entries.
func (x *live) entries() []entry {
	out := make([]entry, 0, x.n)
	for _, leaf := range x.leaves {
		out = append(out, leaf...)
	}
	return out
}

// put has e override what the index says about its sectors. What no entry maps
// to any more is told to dead, unless that is nil: sectors of the stream.
func (x *live) put(e entry, dead func(start, n uint64)) {
	if x.replace(e, dead) {
		return
	}
	p := x.cut(e.offset(), e.end(), dead)
	x.stored += e.mappedEnd() - e.mapped()
	if before, ok := x.prev(p); ok {
		if b, _ := x.at(before); continues(b, e) {
			x.leaves[before.leaf][before.at].key += e.length()
			x.join(before)
			return
		}
	}
	if after, ok := x.at(p); ok && continues(e, after) {
		e.key += after.length()
		x.leaves[p.leaf][p.at] = e
		x.refresh(p)
		return
	}
	x.insert(p, e)
}

// replace is put where one entry takes the place of one of the same sectors, and
// stays by itself: a block that is written again. Nothing moves.
func (x *live) replace(e entry, dead func(start, n uint64)) bool {
	p := x.find(e.offset())
	old, ok := x.at(p)
	if !ok || old.key != e.key {
		return false
	}
	if before, ok := x.prev(p); ok {
		if b, _ := x.at(before); continues(b, e) {
			return false
		}
	}
	if after, ok := x.at(x.next(p)); ok && continues(e, after) {
		return false
	}
	x.died(old, dead)
	x.stored += e.mappedEnd() - e.mapped()
	x.leaves[p.leaf][p.at] = e
	return true
}

// join makes one entry of the one at p and the next, if they are two halves.
func (x *live) join(p place) {
	e, _ := x.at(p)
	q := x.next(p)
	after, ok := x.at(q)
	if !ok || !continues(e, after) {
		return
	}
	x.leaves[p.leaf][p.at].key += after.length()
	x.remove(q)
}

// continues reports whether a and b are one segment.
func continues(a, b entry) bool {
	if a.end() != b.offset() || a.zeroed() != b.zeroed() || a.length()+b.length() > maxLength {
		return false
	}
	return a.zeroed() || a.mappedEnd() == b.mapped()
}

// cut removes what the index says about the sectors from start up to end, and
// returns the place of the entry that would start there.
func (x *live) cut(start, end uint64, dead func(start, n uint64)) place {
	p := x.find(start)
	e, ok := x.at(p)
	if ok && e.offset() < start {
		// It keeps its head, and maybe its tail.
		keep := start - e.offset()
		x.leaves[p.leaf][p.at] = e.trimBack(e.length() - keep)
		rest := e.trimFront(keep)
		p = x.next(p)
		if rest.end() > end {
			x.died(rest.trimBack(rest.end()-end), dead)
			x.insert(p, rest.trimFront(end-rest.offset()))
			return x.find(end)
		}
		x.died(rest, dead)
		e, ok = x.at(p)
	}
	for ok && e.offset() < end {
		if e.end() > end {
			n := end - e.offset()
			x.died(e.trimBack(e.length()-n), dead)
			x.leaves[p.leaf][p.at] = e.trimFront(n)
			x.refresh(p)
			break
		}
		x.died(e, dead)
		p = x.remove(p)
		e, ok = x.at(p)
	}
	return p
}

// died notes that no entry maps to what e maps to.
func (x *live) died(e entry, dead func(start, n uint64)) {
	if e.zeroed() {
		return
	}
	x.stored -= e.length()
	if dead != nil {
		dead(e.mapped(), e.length())
	}
}

// refresh tells the array above that the entry at p has changed.
func (x *live) refresh(p place) { x.keys[p.leaf] = x.leaves[p.leaf][0].key }

// insert puts e at p, before what is there.
func (x *live) insert(p place, e entry) {
	x.n++
	if p.at == 0 && p.leaf > 0 && (p.leaf == len(x.leaves) || len(x.leaves[p.leaf-1]) < leafSize) {
		p = place{p.leaf - 1, len(x.leaves[p.leaf-1])} // behind the last of the leaf before
	}
	if p.leaf == len(x.leaves) {
		x.leaves = append(x.leaves, append(make([]entry, 0, leafSize), e))
		x.keys = append(x.keys, e.key)
		return
	}
	leaf := x.leaves[p.leaf]
	if len(leaf) == leafSize {
		p = x.split(p)
		leaf = x.leaves[p.leaf]
	}
	x.leaves[p.leaf] = slices.Insert(leaf, p.at, e)
	x.refresh(p)
}

// split cuts the full leaf at p in two and returns where p is then. What comes
// in order, as records of a compacted log do, leaves the first one full.
func (x *live) split(p place) place {
	leaf := x.leaves[p.leaf]
	half := leafSize / 2
	if p.at == leafSize && p.leaf == len(x.leaves)-1 {
		half = leafSize - 1
	}
	upper := append(make([]entry, 0, leafSize), leaf[half:]...)
	x.leaves[p.leaf] = leaf[:half]
	x.leaves = slices.Insert(x.leaves, p.leaf+1, upper)
	x.keys = slices.Insert(x.keys, p.leaf+1, upper[0].key)
	if p.at > half {
		return place{p.leaf + 1, p.at - half}
	}
	return p
}

// remove removes the entry at p and returns the place of the one after it.
func (x *live) remove(p place) place {
	x.n--
	leaf := slices.Delete(x.leaves[p.leaf], p.at, p.at+1)
	x.leaves[p.leaf] = leaf
	if len(leaf) > 0 {
		x.refresh(p)
		if len(leaf) < leafLow && p.leaf+1 < len(x.leaves) && len(leaf)+len(x.leaves[p.leaf+1]) <= leafSize {
			x.leaves[p.leaf] = append(leaf, x.leaves[p.leaf+1]...)
			x.drop(p.leaf + 1)
		}
	} else {
		x.drop(p.leaf)
		return place{p.leaf, 0}
	}
	if p.at == len(x.leaves[p.leaf]) {
		return place{p.leaf + 1, 0}
	}
	return p
}

// drop removes a leaf from the array above.
func (x *live) drop(leaf int) {
	x.leaves = slices.Delete(x.leaves, leaf, leaf+1)
	x.keys = slices.Delete(x.keys, leaf, leaf+1)
}
