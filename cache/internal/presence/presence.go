// Package presence keeps, for one blob, which of its bytes a cache holds: one
// bit for each unit of 512 bytes, and the file format of that map.
//
// The unit is small because every byte fetched beyond need delays a container
// start. The bits are kept in runs of 1 MiB that exist only where something is
// present, so a barely read or absurdly large blob costs next to nothing.
package presence

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

const (
	// Unit is the number of bytes behind one bit.
	Unit = 512
	// Block is the number of bytes a file system is taken to allocate at
	// once. It is eight units, so a block is a byte of the map.
	Block = 4096
	// Run is the number of bytes that are evicted together.
	Run = 1 << 20
	// MaxSize is the largest blob a Map is made for, in bytes. It bounds
	// what a descriptor can make us allocate (128 KiB of empty map).
	MaxSize = 1 << 40

	runUnits = Run / Unit
	runWords = runUnits / 64
	pageRuns = 64
)

type (
	run  [runWords]atomic.Uint64
	page [pageRuns]atomic.Pointer[run]
)

// Map is the presence of one blob. All methods may run in parallel; each word
// of the map changes atomically, but a method that covers several words does
// not. Offsets and lengths are in bytes and within the blob.
type Map struct {
	size  int64
	pages []atomic.Pointer[page]
}

// New returns an empty map for a blob of size bytes, 0 <= size <= MaxSize.
func New(size int64) *Map {
	runs := (size + Run - 1) / Run
	return &Map{size: size, pages: make([]atomic.Pointer[page], (runs+pageRuns-1)/pageRuns)}
}

// runCount returns the number of runs the blob has, present or not.
func (m *Map) runCount() int { return int((m.size + Run - 1) / Run) }

// at returns run i, nil if nothing of it was ever present.
func (m *Map) at(i int64) *run {
	if p := m.pages[i/pageRuns].Load(); p != nil {
		return p[i%pageRuns].Load()
	}
	return nil
}

// make returns run i and creates it if need be.
func (m *Map) make(i int64) *run {
	slot := &m.pages[i/pageRuns]
	if slot.Load() == nil {
		slot.CompareAndSwap(nil, new(page))
	}
	r := &slot.Load()[i%pageRuns]
	if r.Load() == nil {
		r.CompareAndSwap(nil, new(run))
	}
	return r.Load()
}

// span returns the units that cover n bytes at off.
func span(off, n int64) (u, end int64) { return off / Unit, (off + n + Unit - 1) / Unit }

// word returns the mask of the units [u, end) that share a word with u, and
// their number.
func word(u, end int64) (mask uint64, n int64) {
	bit := u & 63
	n = min(64-bit, end-u)
	return ^uint64(0) >> (64 - n) << bit, n
}

// Has reports whether all units that cover n bytes at off are present.
func (m *Map) Has(off, n int64) bool {
	u, end := span(off, n)
	for u < end {
		r := m.at(u / runUnits)
		if r == nil {
			return false
		}
		mask, k := word(u, end)
		if r[u/64%runWords].Load()&mask != mask {
			return false
		}
		u += k
	}
	return true
}

// Extent reports whether the unit at off is present and up to where, at most
// end, the units after it are the same. off must be a multiple of Unit and
// less than end; until is greater than off whatever changes meanwhile.
func (m *Map) Extent(off, end int64) (present bool, until int64) {
	u, last := span(off, end-off)
	for first := true; u < last; first = false {
		mask, n := word(u, last)
		var w uint64
		if r := m.at(u / runUnits); r != nil {
			w = r[u/64%runWords].Load()
		}
		if first {
			// From the word used below: read twice, it could differ.
			present = w>>(u&63)&1 != 0
		}
		if present {
			w = ^w
		}
		if w &= mask; w != 0 {
			return present, min(end, (u&^63+int64(bits.TrailingZeros64(w)))*Unit)
		}
		u += n
	}
	return present, end
}

// Set marks the units that cover n bytes at off as present and returns how
// many blocks hold something that held nothing before, and how many bytes of
// units are new.
func (m *Map) Set(off, n int64) (blocks, content int64) {
	u, end := span(off, n)
	for u < end {
		mask, k := word(u, end)
		old := m.make(u / runUnits)[u/64%runWords].Or(mask)
		blocks += int64(occupied(old|mask) - occupied(old))
		content += int64(bits.OnesCount64(mask&^old)) * Unit
		u += k
	}
	return blocks, content
}

// Vacant returns how many blocks Set(off, n) would be the first to occupy.
func (m *Map) Vacant(off, n int64) (blocks int64) {
	u, end := span(off, n)
	for u < end {
		mask, k := word(u, end)
		var old uint64
		if r := m.at(u / runUnits); r != nil {
			old = r[u/64%runWords].Load()
		}
		blocks += int64(occupied(old|mask) - occupied(old))
		u += k
	}
	return blocks
}

// Clear marks all units that n bytes at off touch as absent and returns how
// many blocks hold nothing that held something before, and how many bytes of
// units went.
func (m *Map) Clear(off, n int64) (blocks, content int64) {
	u, end := span(off, n)
	for u < end {
		mask, k := word(u, end)
		if r := m.at(u / runUnits); r != nil {
			old := r[u/64%runWords].And(^mask)
			blocks += int64(occupied(old) - occupied(old&^mask))
			content += int64(bits.OnesCount64(old&mask)) * Unit
		}
		u += k
	}
	return blocks, content
}

// Bits is the content of one run.
type Bits [runWords]uint64

// Blocks returns the number of blocks that hold something.
func (b *Bits) Blocks() (n int64) {
	for _, w := range b {
		n += int64(occupied(w))
	}
	return n
}

// Content returns the number of bytes of the units present, the last one of a
// blob taken for a whole one.
func (b *Bits) Content() (n int64) {
	for _, w := range b {
		n += int64(bits.OnesCount64(w)) * Unit
	}
	return n
}

// Bits returns what is present of run i.
func (m *Map) Bits(i int) (b Bits) {
	if r := m.at(int64(i)); r != nil {
		for k := range r {
			b[k] = r[k].Load()
		}
	}
	return b
}

// Take clears run i and returns what it was, for Restore.
func (m *Map) Take(i int) (b Bits) {
	if r := m.at(int64(i)); r != nil {
		for k := range r {
			b[k] = r[k].Swap(0)
		}
	}
	return b
}

// Restore sets the bits b of run i.
func (m *Map) Restore(i int, b Bits) {
	r := m.make(int64(i))
	for k, w := range b {
		r[k].Or(w)
	}
}

// Runs yields the runs of which something is present, in order.
func (m *Map) Runs() iter.Seq2[int, Bits] {
	return func(yield func(int, Bits) bool) {
		for pi := range m.pages {
			p := m.pages[pi].Load()
			if p == nil {
				continue
			}
			for ri := range p {
				if p[ri].Load() == nil {
					continue
				}
				if b := m.Bits(pi*pageRuns + ri); b != (Bits{}) && !yield(pi*pageRuns+ri, b) {
					return
				}
			}
		}
	}
}

// Blocks returns the number of blocks of run i that hold something.
func (m *Map) Blocks(i int) (n int64) {
	if r := m.at(int64(i)); r != nil {
		for k := range r {
			n += int64(occupied(r[k].Load()))
		}
	}
	return n
}

// Empty reports whether nothing is present.
func (m *Map) Empty() bool {
	for range m.Runs() {
		return false
	}
	return true
}

// occupied returns how many of the eight blocks of a word hold something: its
// bytes that are not zero.
func occupied(w uint64) int {
	w |= w >> 4
	w |= w >> 2
	w |= w >> 1
	return bits.OnesCount64(w & 0x0101010101010101)
}
