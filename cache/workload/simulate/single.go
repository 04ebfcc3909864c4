package simulate

import "context"

// running is a cell in the middle of a trace.
type running struct {
	d    *Decoded
	cell *Cell
	s    *store
	c    *counter
	gc   *collector // nil: nothing is collected
	used float64    // the sum over all accesses
}

func begin(d *Decoded, cell *Cell, gc GC) (*running, error) {
	s, err := newStore(cell.Policy, cell.Capacity, len(d.Sizes))
	if err != nil {
		return nil, err
	}
	s.disk = gc.Disk
	r := &running{d: d, cell: cell, s: s, c: newCounter(d, cell)}
	if gc.on() {
		r.gc = newCollector(d, gc, s)
	}
	return r, nil
}

func (r *running) access(a Access) {
	if r.gc != nil {
		r.gc.until(a.Time)
	}
	hit := r.s.get(a.ID, r.d.Sizes[a.ID])
	if r.gc != nil {
		r.gc.used(a, hit)
	}
	r.c.add(a, hit)
	r.used += float64(r.s.used)
}

func (r *running) end() {
	r.c.end()
	r.cell.Evicted, r.cell.TooLarge = r.s.evicted, r.s.tooLarge
	r.cell.Mean = int64(r.used / float64(max(1, r.cell.All.Requests)))
	if r.gc != nil {
		r.cell.Expired = r.gc.expired
	}
}

// single runs one cache over the trace.
func single(ctx context.Context, d *Decoded, cell *Cell, gc GC) error {
	r, err := begin(d, cell, gc)
	if err != nil {
		return err
	}
	for _, a := range d.Accesses.during(ctx) {
		r.access(a)
	}
	r.end()
	return ctx.Err()
}
