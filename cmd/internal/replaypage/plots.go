package replaypage

import (
	"cmp"
	"html/template"
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
