package chunks

import (
	"crypto/sha256"
	"runtime"
	"sync"
)

// span is neighbouring pages with the leaves of a read.
type span struct {
	ix    *index
	first int64   // number of the first page
	pages []*page // nil where one is missing
}

// widen returns the range of the whole leaves that [off, end) touches.
func (s span) widen(off, end int64) (from, to int64) {
	s.pages[0].leaves(func(l leaf) bool {
		from = l.off
		return l.end() <= off
	})
	s.pages[len(s.pages)-1].leaves(func(l leaf) bool {
		to = l.end()
		return to < end
	})
	return from, to
}

// parallelFrom is the number of bytes from which on hashing is spread over
// processors, and what each is given at least.
const (
	parallelFrom = 128 << 10
	parallelMin  = 64 << 10
	parallelMost = 4
)

// check hashes the whole leaves that data has, whose first byte is the first of
// a leaf and at offset off. It returns those with a wrong hash and how many
// bytes the leaves have.
func (s span) check(data []byte, off int64) (bad []leaf, whole int) {
	if len(data) < parallelFrom {
		return s.checkSome(data, off)
	}
	for len(s.pages) > 1 && s.pages[1].start <= off {
		s.pages = s.pages[1:]
	}
	parts := min(len(data)/parallelMin, runtime.GOMAXPROCS(0), parallelMost, len(s.pages))
	found := make([][]leaf, parts)
	done := make([]int, parts)
	var wg sync.WaitGroup
	for i := range parts {
		pages := s.pages[i*len(s.pages)/parts : (i+1)*len(s.pages)/parts]
		from := max(pages[0].start, off)
		if from-off > int64(len(data)) {
			break
		}
		part := func() { found[i], done[i] = span{pages: pages}.checkSome(data[from-off:], from) }
		if i == parts-1 {
			part() // this goroutine has nothing better to do
			break
		}
		wg.Go(part)
	}
	wg.Wait()
	for i := range parts {
		bad, whole = append(bad, found[i]...), whole+done[i]
	}
	return bad, whole
}

// checkSome is check on this goroutine, for the leaves of s.
func (s span) checkSome(data []byte, off int64) (bad []leaf, whole int) {
	for _, p := range s.pages {
		l := leaf{number: p.first, off: p.start}
		for at := 0; at < len(p.raw); at += recordSize {
			l.length = recordLength(p.raw[at:])
			if l.off >= off {
				if len(data)-whole < l.length {
					return bad, whole
				}
				l.sum = p.raw[at+2 : at+recordSize : at+recordSize]
				if !l.matches(data[whole : whole+l.length]) {
					bad = append(bad, l)
				}
				whole += l.length
			}
			l.off += int64(l.length)
			l.number++
		}
	}
	return bad, whole
}

// matches reports whether data is the leaf.
func (l leaf) matches(data []byte) bool {
	sum := sha256.Sum256(data)
	return string(sum[:]) == string(l.sum)
}
