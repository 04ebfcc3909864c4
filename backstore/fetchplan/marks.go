package fetchplan

import (
	"iter"
	"math/bits"
)

// marks is a set of the numbers 0 to n-1. Finding what is missing between two
// numbers takes time for every 4096 that are there: a trace may have a million
// records that all say the same.
type marks struct {
	n     int64
	words []uint64
	full  []uint64 // a bit for each word that has all its bits; nil like words: no number
}

func newMarks(n int64) marks { return marks{n: n} }

// take yields the runs [from, to) of [from, to) that are not in m, in order, and
// adds them. The range lies within the numbers of m.
func (m *marks) take(from, to int64) iter.Seq2[int64, int64] {
	return func(yield func(from, to int64) bool) {
		if m.words == nil {
			m.words = make([]uint64, (m.n+63)/64)
			m.full = make([]uint64, (len(m.words)+63)/64)
		}
		for at := m.absent(from, to); at < to; at = m.absent(at, to) {
			end := m.add(at, to)
			if !yield(at, end) {
				return
			}
			at = end
		}
	}
}

// absent returns the first number from i on that is not in m, to if that is less.
func (m *marks) absent(i, to int64) int64 {
	if i >= to {
		return to
	}
	w := i / 64
	if free := ^m.words[w] &^ (1<<(i%64) - 1); free != 0 {
		return min(w*64+int64(bits.TrailingZeros64(free)), to)
	}
	w = m.notFull(w + 1)
	if w >= int64(len(m.words)) {
		return to
	}
	return min(w*64+int64(bits.TrailingZeros64(^m.words[w])), to)
}

// notFull returns the first word from w on that lacks a number.
func (m *marks) notFull(w int64) int64 {
	for f := w / 64; f < int64(len(m.full)); f++ {
		if some := ^m.full[f] &^ (1<<(w%64) - 1); some != 0 {
			return f*64 + int64(bits.TrailingZeros64(some))
		}
		w = 0 // all bits of the next one
	}
	return int64(len(m.words))
}

// add adds the numbers from i on up to the first that is in m, or to, and returns
// that.
func (m *marks) add(i, to int64) int64 {
	for i < to {
		w, bit := i/64, i%64
		mask := ^uint64(0) << bit
		if rest := to - w*64; rest < 64 {
			mask &= 1<<rest - 1
		}
		there := m.words[w] & mask
		if there != 0 {
			mask &= 1<<bits.TrailingZeros64(there) - 1
		}
		m.words[w] |= mask
		if m.words[w] == ^uint64(0) {
			m.full[w/64] |= 1 << (w % 64)
		}
		if there != 0 {
			return w*64 + int64(bits.TrailingZeros64(there))
		}
		i = min((w+1)*64, to)
	}
	return to
}
