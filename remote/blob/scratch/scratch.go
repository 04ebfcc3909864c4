// Package scratch lends buffers for bytes on their way through the read path. All
// blobs and layers share it, or each of them would hold buffers of its own.
package scratch

import (
	"math/bits"
	"sync"
)

const (
	minClass = 12 // 4 KiB: smaller ones are cheap to make
	maxClass = 22 // 4 MiB: larger ones are not worth keeping
)

// pools has buffers by size class: powers of two from 1<<minClass to 1<<maxClass
// bytes.
//
//nolint:gochecknoglobals // shared scratch memory, no state
var pools [maxClass - minClass + 1]sync.Pool // of *[]byte

// Borrow returns a buffer of n bytes, with anything in it, to be given back with
// Return. It may be called in parallel, as Return may.
func Borrow(n int) *[]byte {
	class := max(bits.Len(uint(max(n, 1)-1)), minClass)
	if class > maxClass {
		b := make([]byte, n)
		return &b
	}
	b, ok := pools[class-minClass].Get().(*[]byte)
	if !ok {
		buf := make([]byte, 1<<class)
		b = &buf
	}
	*b = (*b)[:n]
	return b
}

// Return gives back what Borrow returned. The caller does not touch it any more.
func Return(b *[]byte) {
	if class := bits.Len(uint(cap(*b) - 1)); cap(*b) == 1<<class && class >= minClass && class <= maxClass {
		pools[class-minClass].Put(b)
	}
}
