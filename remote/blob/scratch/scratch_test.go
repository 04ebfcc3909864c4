package scratch_test

import (
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

// Buffers have the length that was asked for, whatever was returned before, and
// nobody else has them meanwhile.
func TestBorrow(t *testing.T) {
	sizes := []int{0, 1, 4095, 4096, 4097, 8192, 100_000, 2 << 20, 4 << 20, 4<<20 + 1, 9 << 20}
	var borrowers sync.WaitGroup
	for id := range 4 {
		borrowers.Go(func() {
			for range 4 {
				for _, n := range sizes {
					b := scratch.Borrow(n)
					if len(*b) != n {
						t.Errorf("borrowed %d bytes, got %d", n, len(*b))
					}
					for i := 0; i < n; i += 1000 {
						(*b)[i] = byte(id)
					}
					for i := 0; i < n; i += 1000 {
						if (*b)[i] != byte(id) {
							t.Error("somebody else has the buffer")
						}
					}
					scratch.Return(b)
				}
			}
		})
	}
	borrowers.Wait()
}

// A buffer that is used again is not made again.
func TestReuse(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { scratch.Return(scratch.Borrow(10_000)) }); n > 0.5 {
		t.Errorf("%v allocations for each loan", n)
	}
}
