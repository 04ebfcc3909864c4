package replaypage

import (
	"fmt"
	"html/template"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// cluster adds what numbers of replicas did.
func (p *page) cluster(r *simulate.Report) {
	if len(r.Cluster) == 0 {
		return
	}
	p.add(section{
		ID: "cluster", Title: "Replicas", Tables: []table{sources(r), index(r)}, Charts: []template.HTML{upstreamTimes(r)},
		About: fmt.Sprintf("Registry caches of %s each (%s), requests spread over them by %s: each alone, and sharing what they have.",
			ofCapacity(r, r.Cluster[0].L1), r.Cluster[0].Policy, r.Cluster[0].Spread),
	})
}

// upstreamTimes draws how often the distinct content was fetched.
func upstreamTimes(r *simulate.Report) template.HTML {
	c := chart.Chart{
		ID: "cluster-times", Title: "Fetched from the upstream, by what is distinct", About: "1: everything once.",
		X: chart.Axis{Label: "replicas", Scale: chart.Log}, Y: chart.Axis{Label: "times"},
	}
	for i, name := range []string{"alone", "sharing"} {
		l := chart.Line{Name: name}
		for _, x := range r.Cluster {
			if x.Shared == (i == 1) {
				l.Points = append(l.Points, chart.Point{X: float64(x.Replicas), Y: x.Times()})
			}
		}
		c.Lines = append(c.Lines, styled(l, i))
	}
	if len(c.Lines[0].Points) < 2 {
		return ""
	}
	return c.HTML()
}

// sources is a table of where requests found what they were for.
func sources(r *simulate.Report) table {
	t := table{Title: "Requests answered from", Numbers: true, Head: []string{
		"replicas", "disk (L1)", "own fetch", "fetch of another", "another's disk", "tier (L2)", "upstream", "bytes of the upstream", "by distinct", "between replicas",
	}}
	for _, c := range r.Cluster {
		share := func(f simulate.Flow) string {
			return fmt.Sprintf("%.3f", report.Ratio(float64(f.Requests), float64(c.All.Requests)))
		}
		name := fmt.Sprintf("%d, each alone", c.Replicas)
		if c.Shared {
			name = fmt.Sprintf("%d, sharing", c.Replicas)
		}
		t.Rows = append(t.Rows, row(name, share(c.Hits), share(c.Joined), share(c.Followed), share(c.Peers), share(c.Stored), share(c.Fetched),
			ofCapacity(r, c.Fetched.Bytes), fmt.Sprintf("%.3f", c.Times()), ofCapacity(r, c.Between.Bytes)))
	}
	return t
}

// index is a table of what Redis was asked, and holds.
func index(r *simulate.Report) table {
	t := table{Title: "Redis", Numbers: true, Head: []string{
		"replicas", "operations a request", "a second", "in the busiest second", "blobs", "holders", "in the tier", "memory",
	}}
	for _, c := range r.Cluster {
		if c.Redis.Idle == 0 {
			continue
		}
		t.Rows = append(t.Rows, row(fmt.Sprint(c.Replicas), fmt.Sprintf("%.3f", c.PerRequest()), fmt.Sprintf("%.1f", c.PerSecond()),
			thousands(c.Redis.Busiest), thousands(c.Redis.Blobs), thousands(c.Redis.Holders), thousands(c.Redis.Objects), report.Bytes(c.Redis.Memory)))
	}
	return t
}
