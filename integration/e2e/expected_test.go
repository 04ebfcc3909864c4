package e2e_test

import (
	"crypto/sha256"
	"fmt"
)

// textSum returns what a file with a text has as its sum.
func textSum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// sparseSum returns the sum of a file with holes as the test images have it:
// zeros, but for a text at each of the offsets.
func sparseSum(size int64, offsets ...int64) string {
	h := sha256.New()
	const step = 64 << 10
	buf := make([]byte, step+64)
	for at := int64(0); at < size; at += step {
		clear(buf)
		for _, off := range offsets {
			if text := fmt.Appendf(nil, "data at %d", off); off >= at && off < at+step {
				copy(buf[off-at:], text)
			}
		}
		h.Write(buf[:min(step, size-at)])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// everyOther returns the offsets of holes and data that take turns.
func everyOther(size int64) []int64 {
	var out []int64
	for off := int64(0); off < size; off += 64 << 10 {
		out = append(out, off)
	}
	return out
}
