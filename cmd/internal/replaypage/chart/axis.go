package chart

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/report"
)

// Scale is how values lie along an axis.
type Scale int

// Scales.
const (
	Linear Scale = iota
	Log
	// Tail is of quantiles from 0 to less than 1: each nine after the point takes as
	// much room as the one before it.
	Tail
)

// Unit is what the numbers of an axis are.
type Unit int

// Units.
const (
	Count   Unit = iota
	Micros       // microseconds
	Seconds      // since the start of something, on linear axes
	Bytes
	Share // of 1, written in percent
)

// Axis is one side of a chart.
type Axis struct {
	Label string
	Scale Scale
	Unit  Unit
	// Min and Max are where it begins and ends. Both 0: where the points do.
	Min, Max float64
}

// at returns where v lies, from 0 to 1.
func (a Axis) at(v float64) float64 {
	lo, hi, v := a.Min, a.Max, min(max(v, a.Min), a.Max)
	switch a.Scale {
	case Log:
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(v)
	case Tail:
		lo, hi, v = nines(lo), nines(hi), nines(v)
	case Linear:
	}
	return (v - lo) / (hi - lo)
}

func nines(q float64) float64 { return -math.Log10(1 - q) }

// fit sets the ends of an axis without to those of values, rounded to where there are
// numbers.
func (a Axis) fit(values []float64) Axis {
	if a.Min != 0 || a.Max != 0 {
		return a
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) || a.Scale == Log && v <= 0 {
			continue
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	if a.Scale != Log {
		if !(hi > 0) {
			hi = 1
		}
		a.Max = hi
		if step := a.step(4); a.Unit != Seconds {
			a.Max = step * math.Ceil(hi/step*(1-1e-9))
		}
		return a
	}
	if math.IsInf(lo, 0) {
		lo, hi = 1, 10
	}
	if a.Unit == Bytes {
		a.Min, a.Max = math.Exp2(math.Floor(math.Log2(lo)+1e-9)), math.Exp2(math.Ceil(math.Log2(hi)-1e-9))
	} else {
		a.Min, a.Max = roundLog(lo, false), roundLog(hi, true)
	}
	if a.Max <= a.Min {
		a.Max = a.Min * 10
	}
	return a
}

// roundLog returns 1, 2 or 5 times a power of ten next to v.
func roundLog(v float64, up bool) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for i, m := range []float64{1, 2, 5, 10} {
		if m*p >= v*(1-1e-9) {
			if up || m*p <= v*(1+1e-9) {
				return m * p
			}
			return []float64{1, 1, 2, 5}[i] * p
		}
	}
	return 10 * p
}

// ticks returns where numbers are written, about n of them.
func (a Axis) ticks(n int) (all []float64) {
	switch a.Scale {
	case Tail:
		for _, q := range []float64{0, .5, .9, .99, .999, .9999, .99999, .999999} {
			if q <= a.Max {
				all = append(all, q)
			}
		}
	case Log:
		if a.Unit == Bytes {
			return a.doublings(n)
		}
		return a.decades(n)
	case Linear:
		step := a.step(n)
		for i := math.Ceil(a.Min / step); i*step <= a.Max*(1+1e-9); i++ {
			all = append(all, i*step)
		}
	}
	return all
}

// decades returns powers of ten, and what is between too where there are few of them.
func (a Axis) decades(n int) (all []float64) {
	decades := math.Log10(a.Max / a.Min)
	every := max(1, int(math.Ceil(decades/float64(n))))
	marks := []float64{1}
	if decades < float64(n)/2.5 {
		marks = []float64{1, 2, 5}
	}
	for e := int(math.Floor(math.Log10(a.Min) + 1e-9)); float64(e) <= math.Log10(a.Max)+1e-9; e++ {
		for _, m := range marks {
			v := m * math.Pow(10, float64(e))
			if e%every == 0 && v >= a.Min*(1-1e-9) && v <= a.Max*(1+1e-9) {
				all = append(all, v)
			}
		}
	}
	return all
}

// doublings returns powers of two, so that whole units are among them.
func (a Axis) doublings(n int) (all []float64) {
	lo, hi := math.Ceil(math.Log2(a.Min)-1e-9), math.Log2(a.Max)+1e-9
	step := 1.0
	for _, step = range []float64{1, 2, 5, 10, 20} {
		if (hi-lo)/step <= float64(n) {
			break
		}
	}
	for e := math.Ceil(lo/step) * step; e <= hi; e += step {
		all = append(all, math.Exp2(e))
	}
	return all
}

// timeSteps are the steps, in seconds, that people read time in.
var timeSteps = []float64{
	.1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600,
	2 * 24 * 3600, 7 * 24 * 3600, 14 * 24 * 3600, 28 * 24 * 3600,
}

// step returns the distance of about n numbers on a linear axis.
func (a Axis) step(n int) float64 {
	raw := (a.Max - a.Min) / float64(n)
	base := 1.0
	switch a.Unit {
	case Seconds:
		for _, s := range timeSteps {
			if s >= raw {
				return s
			}
		}
	case Bytes:
		for raw/base >= 512 {
			base *= 1024
		}
	case Count, Micros, Share:
	}
	raw /= base
	p := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if m*p >= raw*(1-1e-9) {
			return m * p * base
		}
	}
	return 10 * p * base
}

// tick writes a number at an axis, short.
func (a Axis) tick(v float64) string {
	switch a.Unit {
	case Micros:
		return short(v/1e6, []unit{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}})
	case Seconds:
		return clock(v, a.Max)
	case Bytes:
		return shortBytes(v)
	case Share:
		if a.Scale == Tail {
			return percent(v)
		}
		return join(100*v, "%")
	case Count:
	}
	return short(v, []unit{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}})
}

// Text writes a number in full, for tables.
func (u Unit) Text(v float64) string {
	switch {
	case math.IsNaN(v):
		return ""
	case u == Micros:
		return report.Time(int64(math.Round(v)))
	case u == Seconds:
		return time.Duration(math.Round(v*1e3) * 1e6).String()
	case u == Bytes:
		return report.Bytes(int64(math.Round(v)))
	case u == Share:
		return percent(v)
	case v != math.Trunc(v) && v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
}

type unit struct {
	size float64
	name string
}

// short writes v in the largest of the units, which go down, that it has one of.
func short(v float64, units []unit) string {
	if v == 0 {
		return "0"
	}
	for i, u := range units {
		if v >= u.size*(1-1e-9) || i == len(units)-1 {
			return join(v/u.size, u.name)
		}
	}
	return ""
}

func join(v float64, unit string) string {
	s := strconv.FormatFloat(v, 'g', 4, 64)
	if v >= 1e4 {
		s = strconv.FormatFloat(v, 'f', 0, 64)
	}
	if unit == "" {
		return s
	}
	return s + " " + unit
}

// shortBytes writes bytes in units of 1024.
func shortBytes(v float64) string {
	return short(v, []unit{{1 << 50, "PiB"}, {1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, "B"}})
}

// percent writes a share in percent: two digits after the point, more where it has
// more nines.
func percent(v float64) string {
	places := 2.0
	if v < 1 {
		places = max(places, math.Floor(nines(v)+1e-9)-1)
	}
	p := math.Pow(10, min(places, 9))
	return strconv.FormatFloat(math.Round(100*v*p)/p, 'f', -1, 64) + " %"
}

// clock writes seconds since the start, all in the unit that most asks for.
func clock(v, most float64) string {
	switch {
	case v == 0:
		return "0"
	case most < 120:
		return join(v, "s")
	case most < 2*3600:
		if s := math.Mod(v, 60); s != 0 {
			return fmt.Sprintf("%d:%02d", int(v)/60, int(s))
		}
		return join(v/60, "min")
	case most < 4*24*3600:
		if m := math.Mod(v, 3600); m != 0 {
			return fmt.Sprintf("%d:%02d h", int(v)/3600, int(m)/60)
		}
		return join(v/3600, "h")
	}
	return join(v/(24*3600), "d")
}
