package replay

import (
	"sync"
	"time"
)

// mostExpected is how many items are expected at a time: of very small ones, more
// might be in flight, of which readers are better off asking for themselves than
// everybody is with the search for what they wait for.
const mostExpected = 256

// horizon is the items whose data are in flight: reads of them wait.
type horizon struct {
	mu     sync.Mutex
	ahead  int            // items before that were looked at, or are done
	cancel map[int]func() // of their expectations, by item
}

func newHorizon() *horizon { return &horizon{cancel: make(map[int]func())} }

// extend expects the items of r whose data begin before the offset to, each within
// some time from when a reader comes.
func (h *horizon) extend(r *run, items []item, to int64, within time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; h.ahead < len(items) && items[h.ahead].at < to && len(h.cancel) < mostExpected; h.ahead++ {
		i := items[h.ahead]
		if r.trusted(i) && !r.present(i.Extent) {
			h.cancel[h.ahead] = r.Targets[i.Layer].Stage.Expect(i.Off, i.Size, within)
		}
	}
}

// end ends the expectation of item k, for good.
func (h *horizon) end(k int) {
	h.mu.Lock()
	cancel := h.cancel[k]
	delete(h.cancel, k)
	h.ahead = max(h.ahead, k+1)
	h.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// clear ends all expectations from item k on.
func (h *horizon) clear(k int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, cancel := range h.cancel {
		if i >= k {
			cancel()
			delete(h.cancel, i)
		}
	}
}
