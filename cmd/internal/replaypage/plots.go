package replaypage

import (
	"cmp"
	"html/template"
	"math"
	"slices"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// colours is how many a page has for lines.
const colours = 6

// style sets the colour of line i.
func styled(l chart.Line, i int) chart.Line {
	l.Colour, l.Dashed = i%colours+1, i/colours%2 == 1
	return l
}

// most is how many lines a chart has at most.
const most = 6

func latencies(s *report.Summary, all report.Group) []template.HTML {
	pair := chart.Chart{
		ID: "latency-all", Title: "All requests",
		About: "To the right, the slowest: each step of the axis has a tenth of the requests of the one before it.",
		Lines: []chart.Line{
			{Name: "latency", Colour: 1, Points: tail(all.Latency)},
			{Name: "service", Colour: 2, Dashed: true, Points: tail(all.Service)},
		},
	}
	out := []template.HTML{tailChart(pair, all.Count)}
	for _, of := range []struct {
		id, title string
		groups    []report.Group
	}{
		{"latency-kinds", "Latency by kind", s.Kinds()},
		{"latency-outcomes", "Latency by what the cache said", s.Outcomes()},
		{"latency-registries", "Latency by registry", s.ByRegistry()},
	} {
		if len(of.groups) < 2 {
			continue
		}
		slices.SortStableFunc(of.groups, func(a, b report.Group) int { return cmp.Compare(b.Count, a.Count) })
		c := chart.Chart{ID: of.id, Title: of.title}
		for i, g := range of.groups[:min(most, len(of.groups))] {
			l := styled(chart.Line{Name: g.Kind, Points: tail(g.Latency)}, i)
			if g.Kind == "failed" {
				l.Colour = 0
			}
			c.Lines = append(c.Lines, l)
		}
		out = append(out, tailChart(c, all.Count))
	}
	return out
}

// tailChart sets the axes of a chart of quantiles of n times.
func tailChart(c chart.Chart, n int64) template.HTML {
	c.X = chart.Axis{Label: "share of requests that were faster", Scale: chart.Tail, Unit: chart.Share, Max: last(n)}
	c.Y = chart.Axis{Label: "time", Scale: chart.Log, Unit: chart.Micros}
	return c.HTML()
}

// last returns the last quantile of n times that says something.
func last(n int64) float64 { return 1 - 1/min(max(float64(n), 10), 1e6) }

// tail returns the quantiles of h, in steps of a twentieth for each nine.
func tail(h *report.Histogram) (points []chart.Point) {
	end := last(h.Count())
	for nine := 1.0; h.Count() > 0; nine /= 10 {
		for m := 20; m > 2; m-- {
			q := 1 - float64(m)/20*nine
			if q > end {
				return append(points, chart.Point{X: end, Y: float64(h.Max())})
			}
			points = append(points, chart.Point{X: q, Y: float64(h.Quantile(q))})
		}
	}
	return nil
}

// overTime returns the charts of what went on when.
func overTime(s *report.Summary) []template.HTML {
	t, coarse := newTimeline(s, fine), newTimeline(s, coarse)
	if len(t.at) < 2 {
		return nil
	}
	count := func(t *timeline, f func(report.Slice) int64) []chart.Point {
		return t.points(func(i int, x report.Slice) float64 { return t.rate(i, f(x)) })
	}
	quantile := func(q float64) func(int, report.Slice) float64 {
		return func(_ int, x report.Slice) float64 {
			if x.Latency.Count() == 0 {
				return math.NaN()
			}
			return max(1, float64(x.Latency.Quantile(q)))
		}
	}
	share := func(a, b func(report.Slice) int64) func(int, report.Slice) float64 {
		return func(_ int, x report.Slice) float64 {
			if n := a(x) + b(x); n > 0 {
				return float64(a(x)) / float64(n)
			}
			return math.NaN()
		}
	}
	var due, ended int64
	outstanding := func(_ int, x report.Slice) float64 {
		due, ended = due+x.Due, ended+x.Succeeded+x.Failed
		return float64(due - ended)
	}
	charts := []chart.Chart{
		{
			ID: "rate", Title: "Requests", Y: chart.Axis{Label: "requests per second"},
			About: "What was due, and what was answered. Where the registry cannot follow, answers stay below what is due, and catch up later.",
			Lines: []chart.Line{
				{Name: "succeeded", Colour: 1, Points: count(t, func(x report.Slice) int64 { return x.Succeeded })},
				{Name: "due", Colour: 2, Dashed: true, Points: count(t, func(x report.Slice) int64 { return x.Due })},
			},
		},
		{
			ID: "latency-time", Title: "Latency", Y: chart.Axis{Label: "time", Scale: chart.Log, Unit: chart.Micros},
			About: "Of the requests that were due at a time, whenever they ended.",
			Lines: []chart.Line{
				{Name: "p50", Colour: 1, Points: t.points(quantile(.5))},
				{Name: "p99", Colour: 2, Points: t.points(quantile(.99))},
				{Name: "max", Colour: 3, Dashed: true, Points: t.points(quantile(1))},
			},
		},
		{
			ID: "outstanding", Title: "Outstanding", Y: chart.Axis{Label: "requests"},
			About: "Requests that were due and had not ended. A line that only rises is a registry, or a sender, that is too slow for the load.",
			Lines: []chart.Line{{Name: "outstanding", Colour: 4, Points: t.points(outstanding)}},
		},
		{
			ID: "bandwidth", Title: "Transferred", Y: chart.Axis{Label: "bytes per second", Unit: chart.Bytes},
			Lines: []chart.Line{{Name: "bodies", Colour: 5, Points: count(coarse, func(x report.Slice) int64 { return x.Bytes })}},
		},
	}
	if _, _, known := s.HitRatio(); known {
		charts = append(charts, chart.Chart{
			ID: "hits", Title: "Hit ratio", Y: chart.Axis{Label: "share of hits", Unit: chart.Share, Max: 1},
			About: "Of answers that say whether a cache had them.",
			Lines: []chart.Line{
				{Name: "requests", Colour: 3, Points: coarse.points(share(
					func(x report.Slice) int64 { return x.Hits }, func(x report.Slice) int64 { return x.Misses }))},
				{Name: "bytes", Colour: 6, Dashed: true, Points: coarse.points(share(
					func(x report.Slice) int64 { return x.HitBytes }, func(x report.Slice) int64 { return x.MissBytes }))},
			},
		})
	}
	if s.Failed().Count > 0 {
		charts = append(charts, chart.Chart{
			ID: "failed", Title: "Failures", Y: chart.Axis{Label: "requests per second"},
			Lines: []chart.Line{{Name: "failed", Bars: true, Points: count(t, func(x report.Slice) int64 { return x.Failed })}},
		})
	}
	out := make([]template.HTML, len(charts))
	for i, c := range charts {
		c.X = chart.Axis{Label: "time since the start", Unit: chart.Seconds, Max: t.end}
		out[i] = c.HTML()
	}
	return out
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

// rate returns n a second in slice i, no number where hardly any of the slice is in
// the run.
func (t *timeline) rate(i int, n int64) float64 {
	if t.span[i] < t.width()/4 {
		return math.NaN()
	}
	return float64(n) / t.span[i]
}

func (t *timeline) width() float64 { return slices.Max(t.span) }

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

// sizes returns the distribution of the sizes of bodies.
func sizes(s *report.Summary) template.HTML {
	c := chart.Chart{
		ID: "sizes-bodies", Title: "Sizes of bodies", About: "Of answers and pushes that succeeded, each as often as it was sent.",
		X: chart.Axis{Label: "bytes", Scale: chart.Log, Unit: chart.Bytes}, Y: chart.Axis{Label: "share that is not larger", Unit: chart.Share, Max: 1},
	}
	var names []string
	for name, h := range s.Sizes {
		if h.Max() > 2 { // pings say nothing
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names[:min(most, len(names))] {
		l := chart.Line{Name: name}
		const n = 100
		for k := range n + 1 {
			q := float64(k) / n
			l.Points = append(l.Points, chart.Point{X: max(1, float64(s.Sizes[name].Quantile(q))), Y: q})
		}
		c.Lines = append(c.Lines, styled(l, i))
	}
	return c.HTML()
}
