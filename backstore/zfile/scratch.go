package zfile

import (
	"math/bits"
	"sync"
)

// scratch lends buffers for compressed data, by size class: powers of two from
// 1<<minClass on. Readers share it, or every layer of every image would hold
// buffers of its own.
//
//nolint:gochecknoglobals // shared scratch memory, no state
var scratch [maxClass - minClass + 1]sync.Pool

const (
	minClass = 13 // 8 KiB
	maxClass = 21 // 2 MiB
)

// borrow returns a buffer of n bytes, at most 1<<maxClass, to be given back
// with giveBack.
func borrow(n int) *[]byte {
	class := max(bits.Len(uint(n-1)), minClass)
	b, ok := scratch[class-minClass].Get().(*[]byte)
	if !ok {
		buf := make([]byte, 1<<class)
		b = &buf
	}
	*b = (*b)[:n]
	return b
}

func giveBack(b *[]byte) {
	scratch[bits.Len(uint(cap(*b)-1))-minClass].Put(b)
}
