package tier

import (
	"sync/atomic"
	"time"
)

// Stats counts what a Tier did since it was made.
type Stats struct {
	Finds, FindErrors uint64

	Reads, ReadErrors uint64 // Opens that the store was asked for; those that failed or broke
	ReadBytes         uint64 // verified
	Damaged           uint64 // Opens that found an object damaged

	Puts, PutErrors uint64
	PutBytes        uint64 // of blobs that were stored

	Refused uint64 // calls that failed at once because the store is away

	Reading, Writing State
}

// State is whether the store works, for reading or for writing.
type State struct {
	Away  bool
	Since time.Time // of the last change; zero if there was none
	Error string    // the last one; "" if there was none
}

type counts struct {
	finds, findErrors, reads, readErrors, readBytes, damaged, puts, putErrors, putBytes atomic.Uint64
}

// Stats returns the counts.
func (t *Tier) Stats() Stats {
	c := &t.counts
	s := Stats{
		Finds: c.finds.Load(), FindErrors: c.findErrors.Load(),
		Reads: c.reads.Load(), ReadErrors: c.readErrors.Load(), ReadBytes: c.readBytes.Load(), Damaged: c.damaged.Load(),
		Puts: c.puts.Load(), PutErrors: c.putErrors.Load(), PutBytes: c.putBytes.Load(),
	}
	var reading, writing uint64
	s.Reading, reading = t.reading.state()
	s.Writing, writing = t.writing.state()
	s.Refused = reading + writing
	return s
}
