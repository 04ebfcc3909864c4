package sectors

import "math/rand/v2"

// Kind is what an operation does.
type Kind uint8

// Kinds of operations.
const (
	Write Kind = iota
	Discard
	Zero
	Flush
	kinds
)

func (k Kind) String() string { return [kinds]string{"write", "discard", "zero", "flush"}[k] }

// op is an operation on n sectors from one on; those of a flush are 0.
type op struct {
	kind   Kind
	sector uint32
	n      uint32
}

func (o op) covers(sector int64) bool {
	return int64(o.sector) <= sector && sector < int64(o.sector)+int64(o.n)
}

// Largest operations in sectors: a request of the kernel, and several of them.
const (
	mostWrite = 1 << 20 / Size
	mostZero  = 4 << 20 / Size
)

// choose draws the next operation on the region [first, first+n).
func choose(r *rand.Rand, first, n uint32) op {
	kind, most := Write, uint32(mostWrite)
	switch p := r.IntN(100); {
	case p < 14:
		return op{kind: Flush}
	case p < 22:
		kind, most = Discard, mostZero
	case p < 28:
		kind, most = Zero, mostZero
	}
	// Lengths are spread evenly over the powers of two, with odd ones among
	// them; one of two is a multiple of 4 KiB, and starts at one.
	length := min(1+uint32(r.Uint64N(1<<r.IntN(12))), most, n)
	at := uint32(r.Uint64N(uint64(n - length + 1)))
	if r.IntN(3) == 0 { // half of the writes go where others have just gone
		at %= max(n/16, 1)
	}
	o := op{kind, first + at, length}
	if r.IntN(2) == 0 && length > 8 {
		end := (o.sector + o.n) &^ 7
		if start := (o.sector + 7) &^ 7; start < end {
			o.sector, o.n = start, end-start
		}
	}
	return o
}
