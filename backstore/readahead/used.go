package readahead

import (
	"math/bits"
	"sync/atomic"
)

// Counters count what is read ahead of the devices that share them. Bytes are of
// the devices.
type Counters struct{ ahead, used, impolite atomic.Int64 }

// Stats is a snapshot of Counters.
type Stats struct {
	Ahead   int64 // bytes that were read before anybody asked for them
	Used    int64 // those of them that somebody has asked for since
	Skipped int64 // reads that were not made longer because somebody else waited for the registry
}

// Stats returns what was counted.
func (c *Counters) Stats() Stats {
	return Stats{Ahead: c.ahead.Load(), Used: c.used.Load(), Skipped: c.impolite.Load()}
}

const (
	// tried is how many bytes are read ahead of a device before it is asked what
	// became of them.
	tried = 4 << 20
	// remembered is how many are looked back on.
	remembered = 16 << 20
	// leastUsed is the part of them that must have been used, for more to be read
	// ahead. In starts it is about half.
	leastUsed = 1.0 / 8
)

// gain tells whether reading ahead is of use: reads all over a large file, as
// those of a database, find next to nothing of it.
type gain struct{ ahead, used int64 } // bytes

func (g *gain) read(n int64) {
	if g.ahead += n; g.ahead > remembered {
		g.ahead, g.used = g.ahead/2, g.used/2
	}
}

// poor reports whether too little of what was read ahead was used.
func (g *gain) poor() bool { return g.ahead > tried && float64(g.used) < leastUsed*float64(g.ahead) }

// forgive takes n bytes that were not read ahead for want of use off what was, so
// that one day it is tried again.
func (g *gain) forgive(n int64) { g.ahead = max(g.ahead-n, 0) }

// unread is a set of pages of align bytes that were read ahead and not yet used:
// by groups of 64 pages a bit for each.
type unread map[int64]uint64

// add enters the pages that lie within s and returns how many bytes are new.
func (u unread) add(s Span) int64 {
	var n int
	each((s.Off+align-1)/align, s.End/align, func(group int64, mask uint64) {
		n += bits.OnesCount64(mask &^ u[group])
		u[group] |= mask
	})
	return int64(n) * align
}

// take takes the pages out that s touches and returns how many bytes they are.
func (u unread) take(s Span) int64 {
	if len(u) == 0 {
		return 0
	}
	var n int
	each(s.Off/align, (s.End+align-1)/align, func(group int64, mask uint64) {
		if left, ok := u[group]; ok {
			n += bits.OnesCount64(mask & left)
			if left &^= mask; left == 0 {
				delete(u, group)
			} else {
				u[group] = left
			}
		}
	})
	return int64(n) * align
}

// each calls f for the groups of 64 that the pages from first to end lie in, with
// the bits of these pages.
func each(first, end int64, f func(group int64, mask uint64)) {
	for first < end {
		group := first / 64
		n := min(end, (group+1)*64) - first
		f(group, (1<<n-1)<<(first%64))
		first += n
	}
}
