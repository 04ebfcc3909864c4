package presence_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// A blob is cut into stripes that each belong to one writer, and a stripe into
// four steps: so few that no block is ever crowded.
const (
	step   = 251
	stripe = 4 * step
)

// TestParallel has several writers in the same runs, each in stripes of its
// own and with a model of them, while another takes runs and restores them.
func TestParallel(t *testing.T) {
	const size, writers = 2<<20 + 333, 4
	m := presence.New(size)
	var (
		wg, ends sync.WaitGroup
		// restoring brings back what was cleared since the taking, so that
		// clearing waits for it.
		restoring sync.RWMutex
		done      = make(chan struct{})
		errs      = make([]error, writers)
		models    = make([]model, writers)
	)
	for i := range writers {
		models[i] = make(model, size)
		wg.Go(func() { errs[i] = writeStripes(m, models[i], i, writers, &restoring) })
	}
	ends.Go(func() {
		for i := 0; ; i = (i + 1) % 3 {
			select {
			case <-done:
				return
			default:
			}
			restoring.Lock()
			m.Restore(i, m.Take(i))
			restoring.Unlock()
		}
	})
	wg.Wait()
	close(done)
	ends.Wait()
	want := make(model, size)
	for i, own := range models {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		for x, v := range own {
			want[x] = want[x] || v
		}
	}
	for x := int64(0); x < size; {
		here, until := m.Extent(x, size)
		if wantHere, wantUntil := want.extent(x, size); here != wantHere || until != wantUntil {
			t.Fatalf("at %d: %t until %d, want %t until %d", x, here, until, wantHere, wantUntil)
		}
		x = until
	}
}

// writeStripes makes random calls within the i-th of every n stripes, and
// checks that nothing is said to be present that is not.
func writeStripes(m *presence.Map, own model, i, n int, restoring *sync.RWMutex) error {
	rng := rand.New(rand.NewPCG(5, uint64(i)))
	size := int64(len(own))
	for range 5000 {
		start := (rng.Int64N(size/stripe/int64(n))*int64(n) + int64(i)) * stripe
		first := rng.Int64N(4)
		off, length := start+first*step, (1+rng.Int64N(4-first))*step
		if rng.IntN(3) > 0 {
			m.Set(off, length)
			own.put(off, length, true)
		} else {
			restoring.RLock()
			m.Clear(off, length)
			restoring.RUnlock()
			own.put(off, length, false)
		}
		off = start + rng.Int64N(stripe)
		length = 1 + rng.Int64N(start+stripe-off)
		if m.Has(off, length) && !own.has(off, length) {
			return fmt.Errorf("Has(%d, %d) of bytes that are not present", off, length)
		}
	}
	return nil
}
