package simulate

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// CurveConfig says which miss-ratio curves of LRU are made.
type CurveConfig struct {
	Exact bool
	// Shards are the rates of samples, such as 0.01: SHARDS with a fixed rate.
	Shards []float64
	// Sample is the number of objects in a sample: SHARDS with a fixed size. 0: none.
	Sample int
	// Points is how many sizes a curve has. Default 100.
	Points int
}

// Curve is the miss ratio of LRU at many sizes, from one pass over the trace.
type Curve struct {
	Name    string       `json:"name"`
	Rate    float64      `json:"rate"` // of the sample; 1: all objects
	Objects int          `json:"objects"`
	Points  []CurvePoint `json:"points"` // none where no object is in the sample
	// MeanError is the mean distance of the miss ratios to those of the exact curve,
	// where there is one.
	MeanError float64 `json:"meanError,omitempty"`
	// LargeError is the same of sizes from a hundredth of all content on: below that
	// hits come from a few objects, and it matters whether these are in the sample.
	LargeError float64 `json:"largeError,omitempty"`
}

// CurvePoint is a point of a miss-ratio curve.
type CurvePoint struct {
	Capacity int64   `json:"capacity"` // bytes, or with Unit objects
	Miss     float64 `json:"miss"`
	ByteMiss float64 `json:"byteMiss"`
}

// check says whether the samples can be taken.
func (c CurveConfig) check() error {
	for _, rate := range c.Shards {
		if !(rate > 0 && rate <= 1) {
			return fmt.Errorf("SHARDS with a rate of %g, which is not from above 0 to 1", rate)
		}
	}
	if c.Sample < 0 {
		return fmt.Errorf("SHARDS of %d objects", c.Sample)
	}
	return nil
}

// curves adds the simulations of the curves to j.
func curves(j *jobs, d *Decoded, cfg CurveConfig) []Curve {
	if cfg.Points <= 0 {
		cfg.Points = 100
	}
	var specs []stackConfig
	if cfg.Exact {
		specs = append(specs, stackConfig{name: "exact", rate: 1})
	}
	for _, rate := range cfg.Shards {
		specs = append(specs, stackConfig{name: fmt.Sprintf("SHARDS %g", rate), rate: rate})
	}
	if cfg.Sample > 0 {
		specs = append(specs, stackConfig{name: fmt.Sprintf("SHARDS of %d objects", cfg.Sample), rate: 1, objects: cfg.Sample})
	}
	out := make([]Curve, len(specs))
	for i, s := range specs {
		j.do(func(ctx context.Context) (err error) {
			out[i], err = stack(ctx, d, s, cfg.Points)
			return err
		})
	}
	return out
}

// compare tells each curve how far it is from the exact one.
func compare(curves []Curve) {
	i := slices.IndexFunc(curves, func(c Curve) bool { return c.Rate == 1 && c.Name == "exact" })
	if i < 0 {
		return
	}
	for n := range curves {
		if n == i || len(curves[n].Points) != len(curves[i].Points) {
			continue
		}
		var sum, large, larger float64
		exact := curves[i].Points
		for p, x := range curves[n].Points {
			off := math.Abs(x.Miss - exact[p].Miss)
			sum += off
			if x.Capacity >= exact[len(exact)-1].Capacity/100 {
				large += off
				larger++
			}
		}
		curves[n].MeanError, curves[n].LargeError = sum/float64(len(exact)), large/larger
	}
}
