package chunks

import "crypto/sha256"

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

// check hashes the whole leaves that data has, whose first byte is the first of
// a leaf and at offset off. It returns those with a wrong hash and how many
// bytes the leaves have.
func (s span) check(data []byte, off int64) (bad []leaf, whole int) {
	for _, p := range s.pages {
		more := p.leaves(func(l leaf) bool {
			if l.off < off {
				return true
			}
			if len(data)-whole < l.length {
				return false
			}
			if !l.matches(data[whole : whole+l.length]) {
				bad = append(bad, l)
			}
			whole += l.length
			return whole < len(data)
		})
		if !more {
			break
		}
	}
	return bad, whole
}

// matches reports whether data is the leaf.
func (l leaf) matches(data []byte) bool {
	sum := sha256.Sum256(data)
	return string(sum[:]) == string(l.sum)
}
