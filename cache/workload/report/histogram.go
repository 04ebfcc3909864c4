package report

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// geometry is the range and the precision of a histogram.
type geometry struct {
	highest int64 // larger values count as this one
	digits  int
}

func (g geometry) String() string {
	return fmt.Sprintf("%d digits up to %d", g.digits, g.highest)
}

var (
	// times are microseconds up to an hour: within 0.1 %.
	times = geometry{3600e6, 3}
	// sizes are bytes up to 1 TiB: within 0.1 %.
	sizes = geometry{1 << 40, 3}
	// sliceTimes are those within a slice of the run, of which there may be hundreds:
	// within 1 %.
	sliceTimes = geometry{3600e6, 2}
)

// Histogram is an HDR histogram (hdrhistogram.org), with the exact sum and extremes
// beside it. Its JSON form has the standard encoding of such histograms, which tools in
// other languages read. The zero value is empty and is of no use but to be decoded into.
type Histogram struct {
	geometry
	h        *hdrhistogram.Histogram // nil while empty: most groups see few results
	sum      int64
	min, max int64
}

func newHistogram(g geometry) *Histogram { return &Histogram{geometry: g} }

func (h *Histogram) record(v int64) {
	v = max(v, 0)
	if h.h == nil {
		h.h = hdrhistogram.New(1, h.highest, h.digits)
		h.min = v
	}
	h.sum += v
	h.min, h.max = min(h.min, v), max(h.max, v)
	_ = h.h.RecordValue(min(v, h.highest)) // within its range
}

// Count returns how many values there are.
func (h *Histogram) Count() int64 {
	if h == nil || h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// Max returns the largest value, exactly; 0 if there is none.
func (h *Histogram) Max() int64 {
	if h == nil {
		return 0
	}
	return h.max
}

// Min returns the smallest value, exactly; 0 if there is none.
func (h *Histogram) Min() int64 {
	if h == nil {
		return 0
	}
	return h.min
}

// Mean returns the mean of the values themselves; 0 if there are none.
func (h *Histogram) Mean() float64 {
	if h.Count() == 0 {
		return 0
	}
	return float64(h.sum) / float64(h.Count())
}

// Quantile returns the value that the share q of all values do not exceed, as exactly
// as the histogram is; 0 if there are none.
func (h *Histogram) Quantile(q float64) int64 {
	if h.Count() == 0 {
		return 0
	}
	return min(max(h.h.ValueAtPercentile(100*q), h.min), h.max)
}

// Share returns the share of the values that are at most v; 0 if there are none.
func (h *Histogram) Share(v int64) float64 {
	if h.Count() == 0 {
		return 0
	}
	var n int64
	for _, b := range h.h.Distribution() {
		if b.From > v {
			break
		}
		n += b.Count
	}
	return float64(n) / float64(h.Count())
}

// merge adds the values of o, which is of the same geometry.
func (h *Histogram) merge(o *Histogram) {
	if o.Count() == 0 {
		return
	}
	if h.Count() == 0 {
		*h = *o.clone()
		return
	}
	h.h.Merge(o.h)
	h.sum += o.sum
	h.min, h.max = min(h.min, o.min), max(h.max, o.max)
}

// fits checks that h, which was read, is of geometry g, and makes it so if it is empty.
func (h *Histogram) fits(g geometry) error {
	if h.Count() == 0 {
		h.geometry = g
	}
	if h.geometry != g {
		return fmt.Errorf("histogram of %s, want %s", h.geometry, g)
	}
	return nil
}

func (h *Histogram) clone() *Histogram {
	c := *h
	if h.h != nil {
		c.h = h.h.Clone()
	}
	return &c
}

// histogramJSON is the JSON form. The quantiles are for people and scripts: they are
// not read back.
type histogramJSON struct {
	Count int64   `json:"count"`
	Sum   int64   `json:"sum"`
	Min   int64   `json:"min"`
	Mean  float64 `json:"mean"`
	P50   int64   `json:"p50"`
	P90   int64   `json:"p90"`
	P99   int64   `json:"p99"`
	P999  int64   `json:"p99.9"`
	Max   int64   `json:"max"`
	HDR   string  `json:"hdr,omitempty"`
}

// MarshalJSON writes the figures people ask for and the histogram itself.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	if h.Count() == 0 {
		return json.Marshal(histogramJSON{})
	}
	code, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encoding histogram: %w", err)
	}
	return json.Marshal(histogramJSON{
		h.Count(), h.sum, h.min, h.Mean(), h.Quantile(.5), h.Quantile(.9), h.Quantile(.99), h.Quantile(.999), h.max, string(code),
	})
}

// errHistogram says that the figures beside a histogram are not of it.
var errHistogram = errors.New("count or extremes are not those of the histogram")

// UnmarshalJSON reads what MarshalJSON writes.
func (h *Histogram) UnmarshalJSON(text []byte) error {
	var j histogramJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return fmt.Errorf("reading histogram: %w", err)
	}
	if j.HDR == "" {
		if j.Count != 0 {
			return fmt.Errorf("reading histogram: %w", errHistogram)
		}
		*h = Histogram{}
		return nil
	}
	d, err := hdrhistogram.Decode([]byte(j.HDR))
	if err != nil {
		return fmt.Errorf("reading histogram: %w", err)
	}
	if d.TotalCount() == 0 || d.TotalCount() != j.Count || j.Min > j.Max || j.Min < 0 {
		return fmt.Errorf("reading histogram: %w", errHistogram)
	}
	*h = Histogram{geometry{d.HighestTrackableValue(), int(d.SignificantFigures())}, d, j.Sum, j.Min, j.Max}
	return nil
}
