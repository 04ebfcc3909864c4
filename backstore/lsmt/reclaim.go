package lsmt

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	maxDead     = 1 << 17  // ranges that are remembered: 2 MiB
	reclaimStep = 16 << 10 // sectors of dead data that are worth freeing: 8 MiB

	// To free a range takes the host's file system some 30 us and a piece of its
	// journal, however short it is, and a flush waits for it. So short ranges, in
	// sectors, are left until their neighbours are dead, too, and a flush frees
	// no more than a number of ranges.
	shortSpan = 128
	maxPunch  = 64
)

// span is a range of sectors of a data file.
type span struct{ start, n uint64 }

// deadList collects spans that nothing maps to any more. It has a bounded size:
// what does not fit is found again when the layer is opened.
type deadList struct {
	spans   []span
	sectors uint64
}

func (d *deadList) add(start, n uint64) {
	if k := len(d.spans); k > 0 && d.spans[k-1].start+d.spans[k-1].n == start {
		d.spans[k-1].n += n
	} else if k < maxDead {
		d.spans = append(d.spans, span{start, n})
	} else {
		return
	}
	d.sectors += n
}

// reclaimer frees dead data: after the index that makes it dead is durable,
// after the last read that may see it, and not what a snapshot may see.
type reclaimer struct {
	file hostFile
	unit uint64 // sectors of a host block

	mu    sync.Mutex
	eras  []*era   // whose dead data may be read, oldest first
	ready deadList // that nobody reads
	least uint64   // sectors of it before it is looked at again
	holds int      // snapshots
	off   bool     // the file system can't free a part of a file

	freed atomic.Int64 // bytes
}

// push hands over an era that has ended and whose dead data is durably dead.
func (r *reclaimer) push(e *era) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := len(r.eras); k > 0 && r.eras[k-1].reads.Load() == 0 {
		// Nobody is left in the one before, so its dead data can wait with
		// that of e: there are never more eras than reads.
		before := r.eras[k-1].dead
		for _, s := range e.dead.spans {
			before.add(s.start, s.n)
		}
		e.dead, r.eras = before, r.eras[:k-1]
	}
	r.eras = append(r.eras, e)
	for r.holds == 0 && len(r.eras) > 0 && r.eras[0].reads.Load() == 0 {
		for _, s := range r.eras[0].dead.spans {
			r.ready.add(s.start, s.n)
		}
		r.eras = slices.Delete(r.eras, 0, 1)
	}
}

// hold keeps what dies from now on until release.
func (r *reclaimer) hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.holds--
	})
}

// free frees dead data if there is much of it beside live sectors: half as much.
// An error is none of the layer's: the data stays where it is.
func (r *reclaimer) free(live uint64) {
	for _, s := range r.due(live) {
		if err := r.punch(s.start, s.start+s.n); err != nil {
			r.mu.Lock()
			r.off = true
			r.mu.Unlock()
			return
		}
	}
}

// due takes what is to be freed now.
func (r *reclaimer) due(live uint64) []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := len(r.ready.spans) == maxDead
	if r.off || r.ready.sectors < max(reclaimStep, live/2, r.least) && !full {
		return nil
	}
	short := uint64(shortSpan)
	if r.ready.sectors > 2*live || full {
		short = 0 // the file must not become three times what it holds
	}
	var due, rest []span
	var taken uint64
	for _, s := range merged(r.ready.spans) {
		if s.n >= short && len(due) < maxPunch {
			due = append(due, s)
			taken += s.n
		} else {
			rest = append(rest, s)
		}
	}
	r.ready = deadList{rest, r.ready.sectors - taken}
	r.least = 0
	if len(due) < maxPunch { // all that is worth it
		r.least = r.ready.sectors + max(reclaimStep, live/4)
	}
	return due
}

// merged returns spans in order, those that touch as one. Spans never overlap.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	out := spans[:0]
	for _, s := range spans {
		if k := len(out); k > 0 && out[k-1].start+out[k-1].n == s.start {
			out[k-1].n += s.n
		} else {
			out = append(out, s)
		}
	}
	return out
}

// punch frees the whole blocks of the sectors from start up to end.
func (r *reclaimer) punch(start, end uint64) error {
	start = (start + r.unit - 1) / r.unit * r.unit
	end = end / r.unit * r.unit
	if start >= end {
		return nil
	}
	n := int64(end-start) * SectorSize
	if err := r.file.punch(int64(start)*SectorSize, n); err != nil {
		return err
	}
	r.freed.Add(n)
	return nil
}

// dead returns the bytes that wait to be freed.
func (r *reclaimer) dead() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.ready.sectors
	for _, e := range r.eras {
		n += e.dead.sectors
	}
	return int64(n) * SectorSize
}
