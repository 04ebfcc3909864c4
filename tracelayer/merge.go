package tracelayer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Recording is a trace and when it was made.
type Recording struct {
	Trace Trace
	Time  time.Time
}

// MergeConfig says which reads of several recordings are kept.
type MergeConfig struct {
	// HalfLife is how much older than the newest a recording is that counts
	// half as much as that. Default a week; negative: all count the same.
	HalfLife time.Duration
	// MinShare is the share of the recordings, weighted, that must have read
	// a byte for it to be kept, 0 to 1. Default 0.45: half, but two of about
	// the same age both have it. Negative: any byte that one has read.
	MinShare float64
}

// Validate reports values that make no sense.
func (c MergeConfig) Validate() error {
	if math.IsNaN(c.MinShare) || c.MinShare > 1 {
		return fmt.Errorf("a share of %g of the recordings is more than all of them", c.MinShare)
	}
	return nil
}

// DefaultMergeConfig returns what zeros stand for.
func DefaultMergeConfig() MergeConfig {
	return MergeConfig{HalfLife: 7 * 24 * time.Hour, MinShare: 0.45}
}

func (c MergeConfig) withDefaults() MergeConfig {
	d := DefaultMergeConfig()
	c.HalfLife, c.MinShare = cmp.Or(c.HalfLife, d.HalfLife), cmp.Or(c.MinShare, d.MinShare)
	return c
}

// Weights returns how much each of the recordings counts: the newest 1, the
// others less the older they are. One of an unknown time, zero, counts as the newest.
func (c MergeConfig) Weights(recordings []Recording) []float64 {
	c = c.withDefaults()
	var newest time.Time
	for _, r := range recordings {
		if r.Time.After(newest) {
			newest = r.Time
		}
	}
	weights := make([]float64, len(recordings))
	for i, r := range recordings {
		weights[i] = 1
		if c.HalfLife > 0 && !r.Time.IsZero() {
			weights[i] = math.Exp2(-float64(newest.Sub(r.Time)) / float64(c.HalfLife))
		}
	}
	return weights
}

// Merge returns the reads of several recordings of an image's start as one
// trace: what enough of them read, by weight, ordered by the (weighted) median
// of when they first needed it. The measure of when is how many bytes a
// recording had read before. Reads that overlap are cut, so that every byte
// comes once; neighbours that follow each other become one read of up to
// MaxCount.
func Merge(recordings []Recording, cfg MergeConfig) Trace {
	cfg = cfg.withDefaults()
	weights := cfg.Weights(recordings)
	traces := make([]Trace, len(recordings))
	var total float64
	for i, r := range recordings {
		traces[i] = r.Trace
		total += weights[i]
	}
	c := newCuts(traces...)
	needs := make([][]need, c.total)
	for i, t := range traces {
		var read int64
		c.walk(t, func(_ int, l *layerCuts, segment int) {
			needs[segment] = append(needs[segment], need{at: read, weight: weights[i]})
			read += l.size(segment)
		})
	}
	// A share that is just reached must not be missed by rounding.
	least := (cfg.MinShare - 1e-9) * total
	var kept []placed
	for _, l := range c.order {
		for i := range len(l.bounds) - 1 {
			if at, weight := median(needs[l.first+i]); weight > 0 && weight >= least {
				kept = append(kept, placed{at, Record{
					Op: Read, Layer: l.layer, Off: l.bounds[i], Count: l.bounds[i+1] - l.bounds[i],
				}})
			}
		}
	}
	slices.SortStableFunc(kept, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	return join(kept)
}

// need says when a recording first needed a segment, and what it counts.
type need struct {
	at     int64 // bytes read before
	weight float64
}

// placed is a read with its place in the order.
type placed struct {
	at   int64
	read Record
}

// median returns the place that half of the weight of needs comes up to, and
// the whole weight.
func median(needs []need) (at int64, weight float64) {
	for _, n := range needs {
		weight += n.weight
	}
	slices.SortFunc(needs, func(a, b need) int { return cmp.Compare(a.at, b.at) })
	var sum float64
	for _, n := range needs {
		if sum += n.weight; sum >= weight/2 {
			return n.at, weight
		}
	}
	return 0, weight
}

// join returns the reads with those that continue the one before them joined to
// it, and with none above MaxCount.
func join(reads []placed) Trace {
	var out Trace
	for _, p := range reads {
		r := p.read
		for r.Count > 0 {
			k := len(out) - 1
			if k < 0 || out[k].Layer != r.Layer || out[k].Off+out[k].Count != r.Off || out[k].Count == MaxCount {
				out = append(out, Record{Op: Read, Layer: r.Layer, Off: r.Off})
				k++
			}
			n := min(r.Count, MaxCount-out[k].Count)
			out[k].Count += n
			r.Off += n
			r.Count -= n
		}
	}
	return out
}
