package replaypage

import (
	"html/template"
	"math"
	"slices"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// overTime returns the charts of what went on when.
func overTime(s *report.Summary) []template.HTML {
	fine, coarse := newTimeline(s, fine), newTimeline(s, coarse)
	if len(fine.at) < 2 {
		return nil
	}
	charts := fine.load()
	charts = append(charts, chart.Chart{
		ID: "bandwidth", Title: "Transferred", Y: chart.Axis{Label: "bytes per second", Unit: chart.Bytes},
		Lines: []chart.Line{{Name: "bodies", Colour: 5, Points: coarse.rates(func(x report.Slice) int64 { return x.Bytes })}},
	})
	if _, _, known := s.HitRatio(); known {
		charts = append(charts, coarse.hits())
	}
	if s.Failed().Count > 0 {
		charts = append(charts, chart.Chart{
			ID: "failed", Title: "Failures", Y: chart.Axis{Label: "requests per second"},
			Lines: []chart.Line{{Name: "failed", Bars: true, Points: fine.rates(func(x report.Slice) int64 { return x.Failed })}},
		})
	}
	out := make([]template.HTML, len(charts))
	for i, c := range charts {
		c.X = chart.Axis{Label: "time since the start", Unit: chart.Seconds, Max: fine.end}
		out[i] = c.HTML()
	}
	return out
}

// load returns the charts of how much was asked for and how fast it came.
func (t *timeline) load() []chart.Chart {
	quantile := func(q float64) []chart.Point {
		return t.points(func(_ int, x report.Slice) float64 {
			if x.Latency.Count() == 0 {
				return math.NaN()
			}
			return max(1, float64(x.Latency.Quantile(q)))
		})
	}
	var due, ended int64
	outstanding := func(_ int, x report.Slice) float64 {
		due, ended = due+x.Due, ended+x.Succeeded+x.Failed
		return float64(due - ended)
	}
	return []chart.Chart{
		{
			ID: "rate", Title: "Requests", Y: chart.Axis{Label: "requests per second"},
			About: "What was due, and what was answered. Where the registry cannot follow, answers stay below what is due, and catch up later.",
			Lines: []chart.Line{
				{Name: "succeeded", Colour: 1, Points: t.rates(func(x report.Slice) int64 { return x.Succeeded })},
				{Name: "due", Colour: 2, Dashed: true, Points: t.rates(func(x report.Slice) int64 { return x.Due })},
			},
		},
		{
			ID: "latency-time", Title: "Latency", Y: chart.Axis{Label: "time", Scale: chart.Log, Unit: chart.Micros},
			About: "Of the requests that were due at a time, whenever they ended.",
			Lines: []chart.Line{
				{Name: "p50", Colour: 1, Points: quantile(.5)},
				{Name: "p99", Colour: 2, Points: quantile(.99)},
				{Name: "max", Colour: 3, Dashed: true, Points: quantile(1)},
			},
		},
		{
			ID: "outstanding", Title: "Outstanding", Y: chart.Axis{Label: "requests"},
			About: "Requests that were due and had not ended. A line that only rises is a registry, or a sender, that is too slow for the load.",
			Lines: []chart.Line{{Name: "outstanding", Colour: 4, Points: t.points(outstanding)}},
		},
	}
}

// hits returns the chart of the hit ratio.
func (t *timeline) hits() chart.Chart {
	share := func(a, b func(report.Slice) int64) []chart.Point {
		return t.points(func(_ int, x report.Slice) float64 {
			if a(x)+b(x) == 0 {
				return math.NaN()
			}
			return float64(a(x)) / float64(a(x)+b(x))
		})
	}
	return chart.Chart{
		ID: "hits", Title: "Hit ratio", Y: chart.Axis{Label: "share of hits", Unit: chart.Share, Max: 1},
		About: "Of answers that say whether a cache had them.",
		Lines: []chart.Line{
			{Name: "requests", Colour: 3, Points: share(
				func(x report.Slice) int64 { return x.Hits }, func(x report.Slice) int64 { return x.Misses })},
			{Name: "bytes", Colour: 6, Dashed: true, Points: share(
				func(x report.Slice) int64 { return x.HitBytes }, func(x report.Slice) int64 { return x.MissBytes })},
		},
	}
}

// How many slices charts have at most: those of shares and bytes are of few requests
// otherwise, and say nothing.
const (
	fine   = 300
	coarse = 100
)

// timeline is when slices were.
type timeline struct {
	slices []report.Slice
	at     []float64 // when each begins, seconds since the start
	span   []float64 // how much of it belongs to the run, seconds
	end    float64
}

func newTimeline(s *report.Summary, most int) *timeline {
	series := s.Series.Coarse(most)
	t := &timeline{slices: series.Slices}
	width := series.Width.Seconds()
	t.end = max(s.Elapsed.Seconds(), width)
	for i := range t.slices {
		at := series.Start(i).Sub(s.Start).Seconds()
		from, to := max(at, 0), min(at+width, t.end)
		if s.Runs > 1 { // slices of later runs do not begin where theirs did
			from, to = at, at+width
		}
		t.at = append(t.at, max(at, 0))
		t.span = append(t.span, to-from)
	}
	return t
}

// rates returns how many there were a second, no number where hardly any of a slice is
// in the run.
func (t *timeline) rates(count func(report.Slice) int64) []chart.Point {
	enough := slices.Max(t.span) / 4
	return t.points(func(i int, x report.Slice) float64 {
		if t.span[i] < enough {
			return math.NaN()
		}
		return float64(count(x)) / t.span[i]
	})
}

func (t *timeline) points(value func(int, report.Slice) float64) []chart.Point {
	points := make([]chart.Point, 0, len(t.at))
	for i, x := range t.slices {
		y := value(i, x)
		if i+1 < len(t.at) && t.at[i+1] == t.at[i] {
			continue // it was over before the first request was sent
		}
		points = append(points, chart.Point{X: t.at[i], Y: y})
	}
	return points
}
