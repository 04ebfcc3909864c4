package chunks

import (
	"container/list"
	"sync"
)

// maxPageBytes bounds the pages that are kept for one blob: with the usual
// fan-out, those of the last 28 MiB that were read in blocks of 4 KiB.
const maxPageBytes = 256 << 10

// pageOverhead is about what a kept page takes besides its records.
const pageOverhead = 160

// pages keeps the pages used last.
type pages struct {
	mu    sync.Mutex
	held  map[int64]*list.Element // of *heldPage
	order list.List               // last used first
	bytes int
}

type heldPage struct {
	number int64
	*page
}

// lookup appends to out pages first to last, nil for those that are not held,
// and reports whether all are.
func (c *pages) lookup(out []*page, first, last int64) ([]*page, bool) {
	all := true
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := first; i <= last; i++ {
		e := c.held[i]
		if e == nil {
			out, all = append(out, nil), false
			continue
		}
		c.order.MoveToFront(e)
		out = append(out, e.Value.(*heldPage).page)
	}
	return out, all
}

// put keeps page i.
func (c *pages) put(i int64, p *page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[int64]*list.Element)
	}
	if e := c.held[i]; e != nil {
		c.order.MoveToFront(e)
		return
	}
	c.held[i] = c.order.PushFront(&heldPage{i, p})
	c.bytes += len(p.raw) + pageOverhead
	for c.bytes > maxPageBytes && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*heldPage)
		delete(c.held, old.number)
		c.bytes -= len(old.raw) + pageOverhead
	}
}
