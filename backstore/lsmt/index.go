package lsmt

// index finds the entry of a sector. Beside the sorted entries it has a
// directory that cuts the disk into 1<<shift sectors each and tells how many
// entries start before each cut, so that a search looks only at the few
// entries that start in the same part of the disk. It is immutable.
type index struct {
	entries   []entry
	directory []uint32
	shift     uint
}

// entriesPerPart sets the size of the directory: 0.5 to 1 byte an entry.
const entriesPerPart = 4

func newIndex(entries []entry) index {
	x := index{entries: entries}
	if len(entries) == 0 {
		return x
	}
	sectors := entries[len(entries)-1].offset() + 1
	parts := max(uint64(len(entries)/entriesPerPart), 1)
	for sectors>>x.shift > parts {
		x.shift++
	}
	x.directory = make([]uint32, sectors>>x.shift+2)
	i := 0
	for part := range x.directory {
		for i < len(entries) && entries[i].offset() < uint64(part)<<x.shift {
			i++
		}
		x.directory[part] = uint32(i)
	}
	return x
}

// find returns the number of the first entry that ends after sector, or the
// number of entries if there is none.
func (x *index) find(sector uint64) int {
	part := sector >> x.shift
	if part >= uint64(max(len(x.directory), 1)-1) {
		return x.before(len(x.entries), sector)
	}
	low, n := int(x.directory[part]), int(x.directory[part+1]-x.directory[part])
	// Binary search for the entries of this part that start at or before
	// sector, written so that the compiler needs no branch in the loop.
	key := sector<<lengthBits | maxLength
	part0 := x.entries[low : low+n]
	for n = len(part0); n > 0; {
		half := (n + 1) / 2
		if part0[half-1].key <= key {
			low += half
			part0 = part0[half:]
		} else {
			part0 = part0[:half-1]
		}
		n = len(part0)
	}
	return x.before(low, sector)
}

// before returns i-1 if that entry, the last to start at or before sector,
// has it, else i.
func (x *index) before(i int, sector uint64) int {
	if i > 0 && x.entries[i-1].end() > sector {
		return i - 1
	}
	return i
}
