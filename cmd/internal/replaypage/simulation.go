package replaypage

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// simulation adds what was simulated.
func (p *page) simulation(r *simulate.Report) {
	about := fmt.Sprintf("Simulated: %s requests for %s objects", thousands(int64(r.Requests)), thousands(int64(r.Objects)))
	if !r.Unit {
		about += fmt.Sprintf(" of %s; %s were asked for", report.Bytes(r.Bytes), report.Bytes(r.Asked))
	}
	about += fmt.Sprintf(". A cache with room for everything has %s of the requests.", chart.Share.Text(r.Most.Ratio()))
	if r.Ranged > 0 {
		about += fmt.Sprintf(" %s were for a part of an object, and count like those for all of it that was ever read.", thousands(int64(r.Ranged)))
	}
	if p.About == "" {
		p.About, about = about, ""
	}
	p.add(section{
		ID: "simulation", Title: "Simulation", About: about,
		Charts: append(slices.Concat(policies(r), curves(r)), over(r), objects(r)),
		Tables: ratios(r),
	})
	p.add(section{
		ID: "prefetch", Title: "Prefetching", Tables: prefetching(r),
		About: "Layers that were pushed are fetched when somebody else asks for a manifest of their repository.",
	})
	p.cluster(r)
	p.add(section{ID: "levels", Title: "Two levels and nodes", Tables: slices.Concat(levels(r), nodes(r))})
}

// capacity is the axis of cache sizes.
func capacity(r *simulate.Report) chart.Axis {
	if r.Unit {
		return chart.Axis{Label: "objects in the cache", Scale: chart.Log}
	}
	return chart.Axis{Label: "size of the cache", Scale: chart.Log, Unit: chart.Bytes}
}

// ofCapacity writes a capacity.
func ofCapacity(r *simulate.Report, n int64) string {
	if r.Unit {
		return thousands(n)
	}
	return report.Bytes(n)
}

// names returns the policies that were simulated, in order.
func names(cells []simulate.Cell) (all []string) {
	for _, c := range cells {
		if !slices.Contains(all, c.Policy) {
			all = append(all, c.Policy)
		}
	}
	return all
}

// policies returns charts of the miss ratio of policies by size.
func policies(r *simulate.Report) []template.HTML {
	miss := func(id, title string, ratio func(simulate.Tally) float64) template.HTML {
		c := chart.Chart{ID: id, Title: title, X: capacity(r), Y: chart.Axis{Label: "share of misses", Unit: chart.Share}}
		for i, name := range names(r.Cells) {
			l := chart.Line{Name: name}
			for _, x := range r.Cells {
				if x.Policy == name && x.Error == "" {
					l.Points = append(l.Points, chart.Point{X: float64(x.Capacity), Y: 1 - ratio(x.All)})
				}
			}
			slices.SortFunc(l.Points, func(a, b chart.Point) int { return int(a.X - b.X) })
			if len(l.Points) > 1 {
				c.Lines = append(c.Lines, styled(l, i))
			}
		}
		return c.HTML()
	}
	out := []template.HTML{miss("policies", "Miss ratio by policy", simulate.Tally.Ratio)}
	if !r.Unit {
		out = append(out, miss("policies-bytes", "Byte miss ratio by policy", simulate.Tally.ByteRatio))
	}
	return out
}

// curves returns the miss-ratio curves.
func curves(r *simulate.Report) []template.HTML {
	draw := func(id, title string, miss func(simulate.CurvePoint) float64) template.HTML {
		c := chart.Chart{ID: id, Title: title, X: capacity(r), Y: chart.Axis{Label: "share of misses", Unit: chart.Share, Max: 1}}
		for i, x := range r.Curves {
			l := chart.Line{Name: x.Name}
			if x.MeanError > 0 {
				l.Name += fmt.Sprintf(" (off by %.4f)", x.MeanError)
			}
			for _, p := range x.Points {
				if p.Capacity > 0 {
					l.Points = append(l.Points, chart.Point{X: float64(p.Capacity), Y: miss(p)})
				}
			}
			l = styled(l, i)
			l.Dashed = x.Rate < 1
			c.Lines = append(c.Lines, l)
		}
		return c.HTML()
	}
	out := []template.HTML{draw("curves", "Miss-ratio curve", func(p simulate.CurvePoint) float64 { return p.Miss })}
	if !r.Unit {
		out = append(out, draw("curves-bytes", "Byte miss-ratio curve", func(p simulate.CurvePoint) float64 { return p.ByteMiss }))
	}
	return out
}

// ratios returns tables of the hit ratios, the best of each size marked.
func ratios(r *simulate.Report) (all []table) {
	if len(r.Cells) == 0 {
		return nil
	}
	all = append(all, matrix(r, r.Cells, "Hit ratio of requests", simulate.Tally.Ratio))
	if !r.Unit {
		all = append(all, matrix(r, r.Cells, "Hit ratio of bytes", simulate.Tally.ByteRatio))
	}
	return all
}

// sizesOf returns the sizes that were simulated, in order.
func sizesOf(cells []simulate.Cell) (all []simulate.Size) {
	for _, c := range cells {
		if !slices.Contains(all, c.Size) {
			all = append(all, c.Size)
		}
	}
	return all
}

// matrix is a table of policies by sizes.
func matrix(r *simulate.Report, cells []simulate.Cell, title string, ratio func(simulate.Tally) float64) table {
	columns := sizesOf(cells)
	t := table{Title: title, Head: make([]string, 1+len(columns)), Numbers: true}
	t.Head[0] = "policy"
	best := map[simulate.Size]float64{}
	for _, c := range cells {
		t.Head[1+slices.Index(columns, c.Size)] = c.Size.String() + " = " + ofCapacity(r, c.Capacity)
		if c.Policy != simulate.Belady && c.Error == "" {
			best[c.Size] = max(best[c.Size], ratio(c.All))
		}
	}
	for _, name := range names(cells) {
		line := make([]cell, 1+len(columns))
		line[0].Text = name
		for _, c := range cells {
			if c.Policy != name {
				continue
			}
			at := &line[1+slices.Index(columns, c.Size)]
			at.Text = fmt.Sprintf("%.3f", ratio(c.All))
			at.Best = name != simulate.Belady && ratio(c.All) == best[c.Size]
			switch {
			case c.Error != "":
				*at = cell{Text: c.Error}
			case c.Bound != nil:
				at.Text += fmt.Sprintf(" (bound %.3f)", ratio(*c.Bound))
			}
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

// over returns the hit ratio over the trace, at the size in the middle.
func over(r *simulate.Report) template.HTML {
	columns := sizesOf(r.Cells)
	if len(columns) == 0 {
		return ""
	}
	size := columns[len(columns)/2]
	c := chart.Chart{
		ID: "over", Title: "Hit ratio over the trace, size " + size.String(),
		X: chart.Axis{Label: "requests"}, Y: chart.Axis{Label: "share of hits", Unit: chart.Share, Max: 1},
	}
	scale := 1.0
	if r.Timed {
		c.X, scale = chart.Axis{Label: "time since the start", Unit: chart.Seconds}, 1e9
	}
	for i, name := range names(r.Cells) {
		for _, x := range r.Cells {
			if x.Policy != name || x.Size != size {
				continue
			}
			l := chart.Line{Name: name}
			for _, p := range x.Over {
				l.Points = append(l.Points, chart.Point{X: float64(p.Time) / scale, Y: p.Ratio()})
			}
			c.Lines = append(c.Lines, styled(l, i))
		}
	}
	return c.HTML()
}

func levels(r *simulate.Report) []table {
	if len(r.Levels) == 0 {
		return nil
	}
	t := table{Title: "Memory before disk", Numbers: true, Head: []string{"policy", "memory", "disk", "hits of memory", "of the rest, hits of disk", "of both", "bytes of both"}}
	for _, l := range r.Levels {
		t.Rows = append(t.Rows, row(l.Policy, ofCapacity(r, l.Memories), ofCapacity(r, l.Disks),
			fmt.Sprintf("%.3f", l.MemoryHits.Ratio()), fmt.Sprintf("%.3f", l.DiskHits.Ratio()),
			fmt.Sprintf("%.3f", l.All.Ratio()), fmt.Sprintf("%.3f", l.All.ByteRatio())))
	}
	return []table{t}
}

// prefetching returns a table of what it brought, and what it cost.
func prefetching(r *simulate.Report) []table {
	if len(r.Prefetch) == 0 {
		return nil
	}
	t := table{Numbers: true, Head: []string{"pushed, fetched kept for", "hits of layers", "of their bytes", "fetches", "bytes fetched", "fetches used", "kept at most"}}
	for _, p := range r.Prefetch {
		t.Rows = append(t.Rows, row(strings.TrimSpace(elapsed(p.Pushed))+", "+strings.TrimSpace(elapsed(p.Fetched)),
			fmt.Sprintf("%.3f", p.Layers.Ratio()), fmt.Sprintf("%.3f", p.Layers.ByteRatio()), thousands(int64(p.Fetches)), //nolint:gosec // a count
			report.Bytes(p.FetchedBytes), fmt.Sprintf("%.3f", report.Ratio(float64(p.Good), float64(p.Good+p.Bad))), report.Bytes(p.Peak)))
	}
	return []table{t}
}

// nodes returns a table of the shared caches behind those of nodes, for each size that
// these had.
func nodes(r *simulate.Report) (all []table) {
	for _, n := range r.PerNode {
		title := fmt.Sprintf("%s nodes with caches of %s (%s), which have %.3f of requests", thousands(int64(n.Nodes)), ofCapacity(r, n.Capacity), n.Policy, n.All.Ratio())
		if !r.Unit {
			title += fmt.Sprintf(" and %.3f of bytes", n.All.ByteRatio())
		}
		all = append(all, matrix(r, n.Shared, title+". Of the other requests a shared cache has", simulate.Tally.Ratio))
	}
	return all
}

// objects returns the distribution of the sizes of objects.
func objects(r *simulate.Report) template.HTML {
	l := chart.Line{Name: "objects", Colour: 1}
	for _, s := range r.Sizes {
		l.Points = append(l.Points, chart.Point{X: max(1, float64(s.Size)), Y: s.Share})
	}
	return chart.Chart{
		ID: "sizes-objects", Title: "Sizes of objects", About: "Each object once, however often it was asked for.",
		X: chart.Axis{Label: "bytes", Scale: chart.Log, Unit: chart.Bytes}, Y: chart.Axis{Label: "share that is not larger", Unit: chart.Share, Max: 1},
		Lines: []chart.Line{l},
	}.HTML()
}
