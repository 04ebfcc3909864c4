package lsmt

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A punched hole costs the host's file system as much as a write, however small
// it is, and splits an extent of the file; and it is a flush that waits for it. Data
// that dies in small pieces, as under random writes, has neighbours that die later:
// what is freed first are the largest pieces, none below leastHole, and not for
// longer than reclaimTime at once. Under even random writes of 4 KiB to all of the
// live data, what is dead then takes up to twice the room of what lives. From mostDead
// times on, as much is freed as makes it less, however long that takes.
const (
	maxDead     = 1 << 17  // ranges that are remembered: 2 MiB
	reclaimStep = 16 << 10 // sectors of dead data that are worth freeing, at least: 8 MiB
	leastHole   = 64       // sectors: 32 KiB
	mostDead    = 2
	reclaimTime = 10 * time.Millisecond
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
	left  uint64   // sectors of ready that free has looked at, and left
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

// free frees dead data if that is worth it; live is how many sectors are not
// dead. An error is none of the layer's: the data stays where it is.
func (r *reclaimer) free(live uint64) {
	r.mu.Lock()
	var spans []span
	// A share of the live data, so that looking through what is left is rare.
	full := len(r.ready.spans) == maxDead
	if !r.off && (full || r.ready.sectors-r.left >= max(reclaimStep, live/8)) {
		spans, r.ready, r.left = r.ready.spans, deadList{}, 0
	}
	r.mu.Unlock()
	if len(spans) == 0 {
		return
	}
	left, err := r.punchLargest(spans, mostDead*live+reclaimStep)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.off = true
		return
	}
	r.left = left.sectors
	for _, s := range r.ready.spans {
		left.add(s.start, s.n)
	}
	r.ready = left
}

// punchLargest punches spans, largest first, while they are large and there is
// time, or as long as there are more sectors than most, or too many spans to
// remember. It returns those that are left.
func (r *reclaimer) punchLargest(spans []span, most uint64) (left deadList, err error) {
	spans, sectors := joinSpans(spans)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(b.n, a.n) })
	end := time.Now().Add(reclaimTime)
	for i, s := range spans {
		pressed := sectors > most || len(spans)-i > maxDead/2
		if !pressed && (s.n < leastHole || time.Now().After(end)) {
			left.add(s.start, s.n)
			continue
		}
		if err := r.punch(s.start, s.start+s.n); err != nil {
			return left, err
		}
		sectors -= s.n
	}
	return left, nil
}

// joinSpans sorts spans and joins neighbours. It returns how many sectors there
// are, too.
func joinSpans(spans []span) (joined []span, sectors uint64) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for _, s := range spans {
		if k := len(joined); k > 0 && s.start <= joined[k-1].start+joined[k-1].n {
			joined[k-1].n = max(joined[k-1].n, s.start+s.n-joined[k-1].start)
		} else {
			joined = append(joined, s)
		}
	}
	for _, s := range joined {
		sectors += s.n
	}
	return joined, sectors
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
