// Package view describes a recorded start for people: in numbers, record by
// record, and as a plot.
package view

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cmd/internal/traces"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Report describes a recording. Sizes and offsets are bytes; those of records
// are of the layers' uncompressed streams, those of the plan of their blobs.
type Report struct {
	Name string     `json:"name"`
	Time *time.Time `json:"time,omitempty"`
	// Paths are those of a priority list, which has nothing else.
	Paths []string `json:"paths,omitempty"`

	Reads int   `json:"reads"`
	Bytes int64 `json:"bytes"`
	// Distinct is Bytes without what had been read before.
	Distinct int64 `json:"distinct_bytes"`
	// Skipped is the number of records that are no reads of anything.
	Skipped int     `json:"skipped,omitempty"`
	Layers  []Layer `json:"layers,omitempty"`
	Plan    *Plan   `json:"plan,omitempty"`
	// Records are the reads in their order.
	Records []Record `json:"records,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Layer is what is read, and planned, of a layer.
type Layer struct {
	Index    uint32        `json:"index"`
	Digest   digest.Digest `json:"digest,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Reads    int           `json:"reads"`
	Bytes    int64         `json:"bytes"`
	Distinct int64         `json:"distinct_bytes"`
	End      int64         `json:"end"` // of the read that is furthest behind
	Extents  int           `json:"extents,omitempty"`
	Planned  int64         `json:"planned_bytes,omitempty"`
}

// Plan is the fetch plan as a whole.
type Plan struct {
	Extents int   `json:"extents"`
	Bytes   int64 `json:"bytes"`
	Data    int64 `json:"data_bytes"`
}

// Record is a read.
type Record struct {
	Layer uint32 `json:"layer"`
	Off   int64  `json:"offset"`
	Count int64  `json:"bytes"`
	// New is how much of it had not been read before, Total the sum of these
	// up to it.
	New   int64 `json:"new_bytes"`
	Total int64 `json:"cumulative_bytes"`
}

// New describes r.
func New(r *traces.Recording) *Report {
	out := &Report{Name: r.Name, Paths: r.Paths, Notes: r.Notes}
	if !r.Time.IsZero() {
		out.Time = &r.Time
	}
	layers := map[uint32]*Layer{}
	layer := func(i uint32) *Layer {
		if layers[i] == nil {
			layers[i] = &Layer{Index: i}
		}
		return layers[i]
	}
	for i, l := range r.Layers {
		*layer(uint32(i)) = Layer{Index: uint32(i), Digest: l.Digest, Size: l.Size}
	}
	out.records(r.Trace, layer)
	if p := r.Plan; p != nil {
		out.Plan = &Plan{Extents: len(p.Extents), Bytes: p.Size(), Data: p.DataSize()}
		for _, e := range p.Extents {
			l := layer(uint32(e.Layer))
			l.Extents++
			l.Planned += e.Size
		}
	}
	for _, l := range layers {
		out.Layers = append(out.Layers, *l)
	}
	slices.SortFunc(out.Layers, func(a, b Layer) int { return int(int64(a.Index) - int64(b.Index)) })
	return out
}

// records describes the reads of t.
func (r *Report) records(t tracelayer.Trace, layer func(uint32) *Layer) {
	for i, fresh := range t.Fresh() {
		rec := t[i]
		if !rec.Sound() {
			r.Skipped++
			continue
		}
		r.Reads++
		r.Bytes += rec.Count
		r.Distinct += fresh
		r.Records = append(r.Records, Record{Layer: rec.Layer, Off: rec.Off, Count: rec.Count, New: fresh, Total: r.Distinct})
		l := layer(rec.Layer)
		l.Reads++
		l.Bytes += rec.Count
		l.Distinct += fresh
		l.End = max(l.End, rec.Off+rec.Count)
	}
}
