package policy

// ranked is an entry in a heap.
type ranked[K comparable] struct {
	key  K
	size int64 // bytes
	read int64 // bytes read since the last use was counted
	uses int64 // times used, its coming included
	base float64
	rank float64 // lowest goes first
	tick uint64  // of equals the one used longest ago goes first
	at   int     // index in the heap
}

// heap is a binary heap of entries, the one to go first at the top, that knows its
// bytes. An entry knows its place, so that changing its rank costs no search.
type heap[K comparable] struct {
	items []*ranked[K]
	bytes int64
}

func (h *heap[K]) less(a, b *ranked[K]) bool {
	return a.rank < b.rank || a.rank == b.rank && a.tick < b.tick
}

// push takes e in.
func (h *heap[K]) push(e *ranked[K]) {
	e.at = len(h.items)
	h.items = append(h.items, e)
	h.bytes += e.size
	h.up(e)
}

// fix puts e where its rank wants it.
func (h *heap[K]) fix(e *ranked[K]) {
	if !h.down(e) {
		h.up(e)
	}
}

// remove takes e out.
func (h *heap[K]) remove(e *ranked[K]) {
	last := h.items[len(h.items)-1]
	h.items[len(h.items)-1] = nil
	h.items = h.items[:len(h.items)-1]
	h.bytes -= e.size
	if last != e {
		h.put(last, e.at)
		h.fix(last)
	}
}

// grow changes the size of e by d bytes, not below zero.
func (h *heap[K]) grow(e *ranked[K], d int64) {
	d = max(d, -e.size)
	e.size += d
	h.bytes += d
}

func (h *heap[K]) put(e *ranked[K], at int) {
	h.items[at], e.at = e, at
}

func (h *heap[K]) up(e *ranked[K]) {
	at := e.at
	for at > 0 {
		parent := (at - 1) / 2
		if !h.less(e, h.items[parent]) {
			break
		}
		h.put(h.items[parent], at)
		at = parent
	}
	h.put(e, at)
}

// down reports whether e moved.
func (h *heap[K]) down(e *ranked[K]) bool {
	at := e.at
	for {
		child := 2*at + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.less(h.items[right], h.items[child]) {
			child = right
		}
		if !h.less(h.items[child], e) {
			break
		}
		h.put(h.items[child], at)
		at = child
	}
	moved := at != e.at
	h.put(e, at)
	return moved
}
