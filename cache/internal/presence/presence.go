// Package presence keeps, for one blob, which of its bytes a cache holds, and
// the file format of that map.
//
// It is exact to the byte: what a reader asks for ends where a compressed block
// or a chunk of them ends, which is anywhere, and every byte fetched beyond
// that delays a container start.
//
// A blob is cut into runs of 1 MiB that exist only where something is present,
// so a barely read or absurdly large blob costs next to nothing. What is
// present of a run is a sorted list of ranges of 8 bytes each. The most there
// are in earnest, every second compressed block of 1 to 2 KB, are some 350 in
// a run, or 3 KB for each MiB; a run that is complete is one range. A reader
// that picks single bytes could make it more, so a block of 4 KiB may have a
// part in BlockRanges of them only: the list is never more than 32 KiB for a
// run, and never more than a 32nd of the disk space of what it speaks of.
package presence

import (
	"iter"
	"sync/atomic"
)

const (
	// Block is the number of bytes a file system is taken to allocate at
	// once.
	Block = 4096
	// BlockRanges is how many separate ranges are kept of one block. Of
	// more, the shortest is forgotten.
	BlockRanges = 16
	// Run is the number of bytes that are evicted together.
	Run = 1 << 20
	// MaxSize is the largest blob a Map is made for, in bytes. It bounds
	// what a descriptor can make us allocate (128 KiB of empty map).
	MaxSize = 1 << 40

	pageRuns = 64
)

type page [pageRuns]atomic.Pointer[Ranges]

// Map is the presence of one blob. All methods may run in parallel, and those
// that only look take no lock; each run changes atomically, but a method that
// covers several does not. Offsets and lengths are in bytes and within the blob.
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

// at returns run i, nil if nothing of it is present.
func (m *Map) at(i int64) *Ranges {
	if p := m.pages[i/pageRuns].Load(); p != nil {
		return p[i%pageRuns].Load()
	}
	return nil
}

// slot returns the place of run i.
func (m *Map) slot(i int64) *atomic.Pointer[Ranges] {
	p := &m.pages[i/pageRuns]
	if p.Load() == nil {
		p.CompareAndSwap(nil, new(page))
	}
	return &p.Load()[i%pageRuns]
}

// part returns the run that off is in and what [off, end) covers of it, from
// the run's start.
func part(off, end int64) (i int64, from, to uint32) {
	i = off / Run
	return i, uint32(off % Run), uint32(min(end-i*Run, Run))
}

// Has reports whether all of the n bytes at off are present.
func (m *Map) Has(off, n int64) bool {
	for end := off + n; off < end; {
		i, from, to := part(off, end)
		r := m.at(i)
		if r == nil {
			return false
		}
		k := notAbove(r.bounds, from)
		if k%2 == 0 || r.bounds[k] < to {
			return false
		}
		off = i*Run + int64(to)
	}
	return true
}

// Extent reports whether the byte at off is present and up to where, at most
// end, the bytes after it are the same. off must be less than end; until is
// greater than off whatever changes meanwhile.
func (m *Map) Extent(off, end int64) (present bool, until int64) {
	for first := true; off < end; first = false {
		i, from, to := part(off, end)
		here, same := m.at(i).extent(from)
		if first {
			present = here
		} else if here != present {
			break
		}
		if same < to {
			return present, i*Run + int64(same)
		}
		off = i*Run + int64(to)
	}
	return present, off
}

// Set marks the n bytes at off as present and returns how many more blocks hold
// something than before, and how many more bytes are present. Both can be
// negative, because of BlockRanges.
func (m *Map) Set(off, n int64) (blocks, content int64) { return m.change(off, n, true) }

// Clear marks the n bytes at off as absent and returns how many fewer blocks
// hold something than before, and how many fewer bytes are present.
func (m *Map) Clear(off, n int64) (blocks, content int64) {
	blocks, content = m.change(off, n, false)
	return -blocks, -content
}

func (m *Map) change(off, n int64, present bool) (blocks, content int64) {
	for end := off + n; off < end; {
		i, from, to := part(off, end)
		off = i*Run + int64(to)
		if !present && m.at(i) == nil {
			continue
		}
		for slot := m.slot(i); ; {
			old := slot.Load()
			now := old.with(from, to, present)
			if slot.CompareAndSwap(old, now) {
				b, c := now.gain(old, from, to)
				blocks, content = blocks+b, content+c
				break
			}
		}
	}
	return blocks, content
}

// Vacant returns how many blocks Set(off, n) would be the first to occupy, at
// most.
func (m *Map) Vacant(off, n int64) (blocks int64) {
	for end := off + n; off < end; {
		i, from, to := part(off, end)
		from, to = from/Block*Block, (to+Block-1)/Block*Block
		occupied, _ := m.at(i).count(from, to)
		blocks += int64(to-from)/Block - occupied
		off = i*Run + int64(to)
	}
	return blocks
}

// Ranges returns what is present of run i.
func (m *Map) Ranges(i int) Ranges { return m.at(int64(i)).value() }

// Take clears run i and returns what it was, for Restore.
func (m *Map) Take(i int) Ranges {
	if m.at(int64(i)) == nil {
		return Ranges{}
	}
	return m.slot(int64(i)).Swap(nil).value()
}

// Restore marks the ranges r of run i as present.
func (m *Map) Restore(i int, r Ranges) {
	if r.Empty() || m.slot(int64(i)).CompareAndSwap(nil, &r) {
		return
	}
	for from, to := range r.all() {
		m.Set(int64(i)*Run+int64(from), int64(to-from))
	}
}

// Runs yields the runs of which something is present, in order.
func (m *Map) Runs() iter.Seq2[int, Ranges] {
	return func(yield func(int, Ranges) bool) {
		for pi := range m.pages {
			p := m.pages[pi].Load()
			if p == nil {
				continue
			}
			for ri := range p {
				if r := p[ri].Load(); r != nil && !yield(pi*pageRuns+ri, *r) {
					return
				}
			}
		}
	}
}

// Empty reports whether nothing is present.
func (m *Map) Empty() bool {
	for range m.Runs() {
		return false
	}
	return true
}
