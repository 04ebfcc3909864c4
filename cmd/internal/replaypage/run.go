package replaypage

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage/chart"
)

// run adds what a replay found.
func (p *page) run(s *report.Summary) {
	if p.Title == "" {
		p.Title = s.Title
	}
	ok, failed, ended := s.Succeeded(), s.Failed(), s.Ended()
	p.About = about(s, ok.Count+failed.Count)
	p.Verdicts = append(p.Verdicts, verdicts(s, ok.Count, failed)...)
	p.Tiles = append(p.Tiles, tiles(s, ok, failed, ended)...)
	p.add(section{
		ID: "latency", Title: "Latency",
		About: "Latency is counted from when a request was due, service time from when it was sent. Where they part, requests had to wait before they were sent. " +
			"Requests that the run cut off are left out.",
		Charts: latencies(s, ended),
		Tables: []table{times("", append([]report.Group{ended}, s.Kinds()...))},
	})
	p.add(section{ID: "time", Title: "Over time", Charts: overTime(s)})
	p.add(section{ID: "failures", Title: "Failures", Tables: failures(s)})
	p.add(section{ID: "breakdown", Title: "By outcome and registry", Tables: breakdown(s)})
	p.add(section{ID: "sizes", Title: "Sizes", Charts: []template.HTML{sizes(s)}})
	p.add(section{ID: "how", Title: "How it was made", Tables: how(s)})
}

func about(s *report.Summary, requests int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s requests", thousands(requests))
	switch n := len(s.Registries); n {
	case 0:
	case 1:
		fmt.Fprintf(&b, " to %s", s.Registries[0])
	default:
		fmt.Fprintf(&b, " to %d registries", n)
	}
	if s.Runs > 1 {
		fmt.Fprintf(&b, " in %d runs", s.Runs)
	}
	if !s.Start.IsZero() {
		fmt.Fprintf(&b, ", from %s, for %s", s.Start.UTC().Format("2006-01-02 15:04:05 UTC"), strings.TrimSpace(elapsed(s.Elapsed)))
	}
	return b.String()
}

// verdicts say whether the figures can be believed, and what did not go well.
func verdicts(s *report.Summary, ok int64, failed report.Group) (all []verdict) {
	for _, why := range s.Generator.Saturated {
		all = append(all, verdict{"bad", "The sender was saturated: " + why + ". Times may be its own and not the registry's."})
	}
	if failed.Count > 0 {
		text := fmt.Sprintf("%s of %s requests failed (%s).", thousands(failed.Count), thousands(ok+failed.Count),
			chart.Share.Text(report.Ratio(float64(failed.Count), float64(ok+failed.Count))))
		if cut := s.Total("", func(k report.Key) bool { return k.Cut }); cut.Count > 0 {
			text += fmt.Sprintf(" The run cut off %s of them.", thousands(cut.Count))
		}
		all = append(all, verdict{"bad", text})
	}
	if len(all) == 0 && ok > 0 {
		all = append(all, verdict{"good", fmt.Sprintf("No request failed, and the sender kept up: 99 %% of requests were sent within %s of when they were due.",
			report.Time(s.Lag.Quantile(.99)))})
	}
	for _, n := range s.Notes {
		all = append(all, verdict{"note", n})
	}
	return all
}

func tiles(s *report.Summary, ok, failed, ended report.Group) []tile {
	seconds := s.Elapsed.Seconds()
	l := ended.Latency
	all := []tile{
		{"Requests", thousands(ok.Count + failed.Count), thousands(failed.Count) + " failed"},
		{"Throughput", decimals(report.Ratio(float64(ok.Count), seconds)) + "/s", "that succeeded"},
		{"Transferred", report.Bytes(ok.Bytes), report.Bytes(int64(report.Ratio(float64(ok.Bytes), seconds))) + "/s"},
		{"Latency p50", report.Time(l.Quantile(.5)), "service " + report.Time(ended.Service.Quantile(.5))},
		{"Latency p99", report.Time(l.Quantile(.99)), "service " + report.Time(ended.Service.Quantile(.99))},
		{"Latency p99.9", report.Time(l.Quantile(.999)), "at most " + report.Time(l.Max())},
	}
	if requests, bytes, known := s.HitRatio(); known {
		all = append(all, tile{"Hit ratio", chart.Share.Text(requests), chart.Share.Text(bytes) + " of bytes"})
	}
	return append(all, tile{"On time", chart.Share.Text(report.Ratio(float64(s.OnTime), float64(ok.Count))),
		"p99 late " + report.Time(s.Lag.Quantile(.99))})
}

// times returns a table of quantiles.
func times(title string, groups []report.Group) table {
	t := table{Title: title, Numbers: true, Head: []string{"", "requests", "bytes"}}
	quantiles := []float64{.5, .9, .99, .999}
	for _, of := range []string{"latency", "service"} {
		t.Head = append(t.Head, of+" p50", "p90", "p99", "p99.9", "max")
	}
	for _, g := range groups {
		line := []string{g.Kind, thousands(g.Count), report.Bytes(g.Bytes)}
		for _, h := range []*report.Histogram{g.Latency, g.Service} {
			for _, q := range quantiles {
				line = append(line, report.Time(h.Quantile(q)))
			}
			line = append(line, report.Time(h.Max()))
		}
		t.Rows = append(t.Rows, row(line...))
	}
	return t
}

// failures returns a table of why requests failed, with all kinds and registries of a
// reason in one line.
func failures(s *report.Summary) []table {
	if len(s.Failures) == 0 {
		return nil
	}
	type reason struct {
		count             int64
		kinds, registries counts
		example           string
	}
	byName := map[string]*reason{}
	var names []string
	for _, f := range s.Failures {
		r := byName[f.Reason()]
		if r == nil {
			r = &reason{kinds: counts{}, registries: counts{}, example: f.Example}
			byName[f.Reason()] = r
			names = append(names, f.Reason())
		}
		r.count += f.Count
		r.kinds[f.Kind] += f.Count
		r.registries[f.Registry] += f.Count
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(byName[b].count, byName[a].count) })
	t := table{Head: []string{"reason", "requests", "kinds", "registries", "for example"}}
	for _, name := range names {
		r := byName[name]
		t.Rows = append(t.Rows, row(name, thousands(r.count), r.kinds.String(), r.registries.String(), r.example))
	}
	return []table{t}
}

// counts are of things by name.
type counts map[string]int64

// String writes all, most first: "blob 61, manifest 29".
func (c counts) String() string {
	names := slices.SortedFunc(maps.Keys(c), func(a, b string) int {
		return cmp.Or(cmp.Compare(c[b], c[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		if len(names) > 1 {
			names[i] += "\u00a0" + thousands(c[name])
		}
	}
	return strings.Join(names, ", ")
}

func breakdown(s *report.Summary) (all []table) {
	if g := s.Outcomes(); len(g) > 1 {
		all = append(all, times("By what the cache said, requests that succeeded", g))
	}
	if g := s.ByRegistry(); len(g) > 1 {
		all = append(all, times("By registry, requests that succeeded", g))
	}
	return all
}

func how(s *report.Summary) (all []table) {
	if len(s.Settings) > 0 {
		t := table{Title: "Settings"}
		for _, x := range s.Settings {
			t.Rows = append(t.Rows, row(x.Name, x.Value))
		}
		all = append(all, t)
	}
	g := s.Generator
	return append(all, table{Title: "Sender", Rows: [][]cell{
		row("requests sent", thousands(int64(g.Sent))), //nolint:gosec // a count
		row("under way at one time, at most", thousands(int64(g.MaxInFlight))),
		row("waited because as many were under way as may be", thousands(int64(g.Capped))), //nolint:gosec // a count
		row("late by, p50", report.Time(s.Lag.Quantile(.5))),
		row("late by, p99", report.Time(s.Lag.Quantile(.99))),
		row("late by, at most", report.Time(s.Lag.Max())),
		row("tokens asked for", thousands(int64(g.Tokens))), //nolint:gosec // a count
	}})
}

// elapsed writes a time that people waited.
func elapsed(d time.Duration) string {
	if d < 100*time.Second {
		return report.Time(d.Microseconds())
	}
	text := d.Round(time.Second).String() // such as 1h5m0s
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
		if hours, ok := strings.CutSuffix(text, "h0m"); ok {
			text = hours + "h"
		}
	}
	return strings.NewReplacer("h", " h ", "m", " min ", "s", " s").Replace(text)
}

// decimals writes a rate.
func decimals(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return thousands(int64(v + .5))
}

// thousands writes n in groups of three digits, with narrow spaces that do not break.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
