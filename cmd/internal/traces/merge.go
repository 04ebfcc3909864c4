package traces

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/tracelayer"
)

// MergeReport says what became of recordings that were merged. Sizes are bytes
// of the layers' uncompressed streams, each counted once.
type MergeReport struct {
	Recordings []Merged `json:"recordings"`
	Reads      int      `json:"reads"`
	Bytes      int64    `json:"bytes"`
	// Trace is the result.
	Trace tracelayer.Trace `json:"-"`
}

// Merged is one of the recordings.
type Merged struct {
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	Weight float64   `json:"weight"`
	Reads  int       `json:"reads"`
	Bytes  int64     `json:"bytes"`
	// Kept is how many of its bytes are in the result.
	Kept int64 `json:"kept_bytes"`
}

// Merge makes one trace of several recordings of the same image. It is an error
// if one of them is a list, known to be of another image, or if they have too
// little in common for anything to be left.
func Merge(all []*Recording, cfg tracelayer.MergeConfig) (*MergeReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	parts := make([]tracelayer.Recording, len(all))
	var known *Recording // says which layers it is of
	for i, r := range all {
		switch {
		case r.Trace == nil:
			return nil, fmt.Errorf("%s is a list of files, which can not be merged", r.Name)
		case known != nil && r.Layers != nil && !slices.Equal(known.Layers, r.Layers):
			return nil, fmt.Errorf("%s is of another image than %s: %s", r.Name, known.Name, Differences(known.Layers, r.Layers))
		case r.Layers != nil:
			known = r
		}
		parts[i] = tracelayer.Recording{Trace: r.Trace, Time: r.Time}
	}
	out := &MergeReport{Trace: tracelayer.Merge(parts, cfg)}
	if len(out.Trace) == 0 {
		return nil, errors.New("merging traces: no byte was read by enough of them")
	}
	out.Reads, out.Bytes = len(out.Trace), distinct(out.Trace)
	for i, w := range cfg.Weights(parts) {
		r := all[i]
		m := Merged{Name: r.Name, Time: r.Time, Weight: w, Reads: len(r.Trace), Bytes: distinct(r.Trace)}
		m.Kept = m.Bytes + out.Bytes - distinct(slices.Concat(r.Trace, out.Trace))
		out.Recordings = append(out.Recordings, m)
	}
	return out, nil
}

// distinct returns how many bytes t reads, each counted once.
func distinct(t tracelayer.Trace) (n int64) {
	for _, fresh := range t.Fresh() {
		n += fresh
	}
	return n
}
