package simulate

import (
	"context"
	"iter"
)

// Access is one request for an object.
type Access struct {
	Time int64  // nanoseconds since the first request
	ID   uint32 // of the object, from 0, in the order in which they first came
	Node uint32 // who asked, from 0
}

// blockLen is how many accesses are allocated at a time: 1 MiB.
const blockLen = 1 << 16

// Accesses is a list of accesses. It grows without being copied, so that a trace
// takes 16 bytes an access and at no time more.
type Accesses struct {
	blocks [][]Access
	n      int
}

// Add appends accesses.
func (l *Accesses) Add(all ...Access) {
	for _, a := range all {
		if l.n%blockLen == 0 {
			l.blocks = append(l.blocks, make([]Access, 0, blockLen))
		}
		last := &l.blocks[len(l.blocks)-1]
		*last = append(*last, a)
		l.n++
	}
}

// Len returns how many there are.
func (l *Accesses) Len() int { return l.n }

// All returns the accesses with their numbers, in order.
func (l *Accesses) All() iter.Seq2[int, Access] {
	return l.during(context.Background())
}

// during returns the accesses until ctx ends, which the caller looks for afterwards.
func (l *Accesses) during(ctx context.Context) iter.Seq2[int, Access] {
	return func(yield func(int, Access) bool) {
		i := 0
		for _, block := range l.blocks {
			if ctx.Err() != nil {
				return
			}
			for _, a := range block {
				if !yield(i, a) {
					return
				}
				i++
			}
		}
	}
}

// span returns the nanoseconds from the first access to the last.
func (l *Accesses) span() int64 {
	if l.n == 0 {
		return 0
	}
	last := l.blocks[len(l.blocks)-1]
	return last[len(last)-1].Time - l.blocks[0][0].Time
}
