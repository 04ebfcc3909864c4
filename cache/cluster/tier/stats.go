package tier

import "time"

// Stats counts what a Tier did since it was made.
type Stats struct {
	Finds, FindErrors uint64

	Reads, ReadErrors uint64 // Opens; those that failed or broke, without damage
	ReadBytes         uint64 // verified
	Damaged           uint64 // objects that were found damaged

	Puts, PutErrors uint64
	PutBytes        uint64 // of blobs that were stored

	Refused uint64 // calls that failed at once because the store is away

	Reading, Writing State
}

// State is whether the store works, for reading or for writing.
type State struct {
	Away  bool
	Since time.Time // of the last change
	Error string    // the last one; "" if there was none
}

// Stats returns the counts.
func (t *Tier) Stats() Stats { return Stats{} }
