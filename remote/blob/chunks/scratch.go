package chunks

import (
	"math/bits"
	"sync"
)

// scratch lends buffers for widened reads, by size class: powers of two from
// 1<<minClass to 1<<maxClass bytes. All blobs share it.
//
//nolint:gochecknoglobals // shared scratch memory, no state
var scratch [maxClass - minClass + 1]sync.Pool

const (
	minClass = 12 // 4 KiB
	maxClass = 21 // 2 MiB; longer buffers are not kept
)

// borrow returns a buffer of n bytes, with anything in it, to be given back.
func borrow(n int) *[]byte {
	class := max(bits.Len(uint(n-1)), minClass)
	if class > maxClass {
		b := make([]byte, n)
		return &b
	}
	b, ok := scratch[class-minClass].Get().(*[]byte)
	if !ok {
		buf := make([]byte, 1<<class)
		b = &buf
	}
	*b = (*b)[:n]
	return b
}

func giveBack(b *[]byte) {
	if class := bits.Len(uint(cap(*b) - 1)); class >= minClass && class <= maxClass {
		scratch[class-minClass].Put(b)
	}
}
