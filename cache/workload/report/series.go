package report

import "time"

// maxSlices bounds a series; slices become wider when there would be more.
const maxSlices = 600

// minWidth is that of the slices of a short run.
const minWidth = 100 * time.Millisecond

// Series is counts over time, in slices of equal width. Slices of all runs begin at
// multiples of their width since 1970, so that those of several clients merge exactly.
type Series struct {
	Width  time.Duration `json:"width"` // ns
	First  int64         `json:"first"` // number of the first slice: it begins First*Width after 1970
	Slices []Slice       `json:"slices"`
}

// Slice is what went on in a slice of time.
type Slice struct {
	Due       int64 `json:"due"`       // requests that were to be sent in it
	Sent      int64 `json:"sent"`      //
	Succeeded int64 `json:"succeeded"` // that ended in it
	Failed    int64 `json:"failed"`    // that ended in it, or were due in it and never sent
	Bytes     int64 `json:"bytes"`     // of bodies that ended in it
	Hits      int64 `json:"hits"`      // of those that a cache called hits or misses
	Misses    int64 `json:"misses"`
	HitBytes  int64 `json:"hitBytes"`
	MissBytes int64 `json:"missBytes"`
	// Latency is of the requests that were due in it, whenever they ended; those that
	// were aborted or lost are not among them. Microseconds.
	Latency *Histogram `json:"latency,omitempty"`
}
