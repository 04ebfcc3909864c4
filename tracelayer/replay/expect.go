package replay

import "sync"

// horizon is the items whose data are in flight: reads of them wait.
type horizon struct {
	mu     sync.Mutex
	ahead  int            // items before that were looked at
	cancel map[int]func() // of their expectations, by item
}

func newHorizon(from int) *horizon {
	return &horizon{ahead: from, cancel: make(map[int]func())}
}

// extend expects the items of r whose data begin before the offset to.
func (h *horizon) extend(r *run, items []item, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; h.ahead < len(items) && items[h.ahead].at < to; h.ahead++ {
		i := items[h.ahead]
		if r.trusted(i) && !r.present(i.Extent) {
			h.cancel[h.ahead] = r.Targets[i.Layer].Stage.Expect(i.Off, i.Size)
		}
	}
}

// end ends the expectation of item k.
func (h *horizon) end(k int) {
	h.mu.Lock()
	cancel := h.cancel[k]
	delete(h.cancel, k)
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
