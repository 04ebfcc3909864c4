package report_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

var (
	bases = []string{"http://one:5000", "http://two:5000"}
	start = time.Date(2026, 3, 1, 12, 0, 0, 70e6, time.UTC)
)

// results returns n results of a run that begins at from, as random as those of a
// registry in trouble.
func results(seed uint64, n int, from time.Time) []load.Result {
	r := rand.New(rand.NewPCG(seed, 1))
	causes := []load.Cause{load.CauseStatus, load.CauseConnect, load.CauseTimeout, load.CauseAborted, load.CauseLost, load.CauseMismatch}
	all := make([]load.Result, n)
	for i := range all {
		x := load.Result{
			Seq: uint64(i), Op: load.Get, Kind: trace.Kind(r.IntN(4)), Registry: r.IntN(2), Status: 200, Bytes: r.Int64N(1 << 24),
			Intended: from.Add(time.Duration(i) * 20 * time.Millisecond),
			Outcome:  []string{"hit", "miss", ""}[r.IntN(3)],
		}
		x.Sent = x.Intended.Add(time.Duration(r.ExpFloat64() * 4e6))
		x.Late = x.Sent.Sub(x.Intended)
		x.Service = time.Duration(r.ExpFloat64() * 30e6)
		x.Latency = x.Sent.Sub(x.Intended) + x.Service
		x.Ranged = x.Kind == trace.Blob && r.IntN(8) == 0
		if r.IntN(20) == 0 {
			x.Cause = causes[r.IntN(len(causes))]
			x.Status = []int{0, 404, 500, 200}[r.IntN(4)]
			x.Err = fmt.Sprintf("%s of %d", x.Cause, x.Status)
			if x.Cause == load.CauseLost {
				x.Sent, x.Service, x.Latency, x.Status = time.Time{}, 0, 0, 0
			}
		}
		all[i] = x
	}
	return all
}

func record(all ...load.Result) *report.Recorder {
	r := report.New(bases)
	for _, x := range all {
		r.Add(x)
	}
	return r
}

func text(t testing.TB, s *report.Summary) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestQuantiles compares with the sorted times themselves.
func TestQuantiles(t *testing.T) {
	all := results(1, 50_000, start)
	var want []int64
	for _, x := range all {
		if x.Cause != load.CauseAborted && x.Cause != load.CauseLost {
			want = append(want, x.Latency.Microseconds())
		}
	}
	slices.Sort(want)
	h := record(all...).Snapshot().Ended().Latency
	if h.Count() != int64(len(want)) {
		t.Errorf("%d times, want %d", h.Count(), len(want))
	}
	for _, q := range []float64{0, .1, .5, .9, .99, .999, .9999, 1} {
		exact := float64(want[max(0, int(q*float64(len(want))+.5)-1)])
		if got := float64(h.Quantile(q)); got < exact-1 || got > exact*1.001+1 {
			t.Errorf("quantile %g is %g, want %g", q, got, exact)
		}
	}
	var sum float64
	for _, v := range want {
		sum += float64(v)
	}
	if mean := sum / float64(len(want)); h.Mean() < mean-1 || h.Mean() > mean+1 {
		t.Errorf("mean %g, want %g", h.Mean(), mean)
	}
	if d := h.Max() - want[len(want)-1]; d < 0 || d > 1 {
		t.Errorf("max %d, want %d", h.Max(), want[len(want)-1])
	}
	if got := h.Share(want[len(want)/2]); got < .499 || got > .501 {
		t.Errorf("share up to the median is %g", got)
	}
}

// TestMergeExact gives results to several recorders in any order and to one: nothing
// can be told apart afterwards, to the last bit of the histograms.
func TestMergeExact(t *testing.T) {
	seeds := []uint64{0, 2}
	if os.Getenv("TRIAL") == "full" {
		seeds = []uint64{0, 1, 2, 3, 4}
	}
	for _, seed := range seeds {
		// From runs that fit in the narrowest slices to such that need wide ones.
		all := results(seed, 2000<<seed, start)
		snapshot := record(all...).Snapshot()
		want := text(t, snapshot)
		r := rand.New(rand.NewPCG(seed, 2))
		parts := make([]*report.Recorder, 4)
		for i := range parts {
			parts[i] = report.New(bases)
		}
		r.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		for _, x := range all {
			parts[r.IntN(len(parts))].Add(x)
		}
		sum := report.New(bases)
		var summaries []*report.Summary
		for _, p := range parts {
			sum.Merge(p)
			summaries = append(summaries, p.Snapshot())
		}
		if got := text(t, sum.Snapshot()); got != want {
			t.Errorf("seed %d: merged recorders say\n%.2000s\nwant\n%.2000s", seed, got, want)
		}
		merged, err := report.Merge(summaries...)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, merged); got != want {
			t.Errorf("seed %d: merged summaries differ", seed)
		}
		if n := len(snapshot.Series.Slices); n > 600 || n < 300 && len(all) > 2000 {
			t.Errorf("seed %d: %d slices", seed, n)
		}
	}
}

// TestSeries checks that each result is counted once in each column of the series.
func TestSeries(t *testing.T) {
	for name, n := range map[string]int{"short": 10, "long": 100_000} {
		all := results(7, n, start)
		s := record(all...).Snapshot()
		var sum report.Slice
		for _, x := range s.Series.Slices {
			sum.Due += x.Due
			sum.Sent += x.Sent
			sum.Succeeded += x.Succeeded
			sum.Failed += x.Failed
			sum.Bytes += x.Bytes
			sum.Hits += x.Hits
			sum.Misses += x.Misses
		}
		var want report.Slice
		for _, x := range all {
			want.Due++
			want.Bytes += x.Bytes
			if !x.Sent.IsZero() {
				want.Sent++
			}
			switch {
			case x.Cause != "":
				want.Failed++
				continue
			case x.Outcome == "hit":
				want.Hits++
			case x.Outcome == "miss":
				want.Misses++
			}
			want.Succeeded++
		}
		if sum != want {
			t.Errorf("%s: sums %+v, want %+v", name, sum, want)
		}
		if first := s.Series.Start(0); first.After(start) || start.Sub(first) >= s.Series.Width {
			t.Errorf("%s: the first slice begins at %s and is %s wide, the run begins at %s", name, first, s.Series.Width, start)
		}
	}
}

// TestRunsThatFollow lays runs of different days one behind the other.
func TestRunsThatFollow(t *testing.T) {
	of := func(r *report.Recorder, under int) *report.Summary {
		r.Generator(load.Stats{Sent: 10, MaxInFlight: under})
		return r.Snapshot()
	}
	a := of(record(results(1, 3000, start)...), 40)
	b := of(record(results(2, 500, start.Add(48*time.Hour))...), 10)
	c := of(record(results(3, 400, start.Add(48*time.Hour+time.Second))...), 20) // a part of b's run
	a.Title, b.Title, c.Title = "cache", "cache", "cache"
	a.Settings = []report.Setting{{"speed", "1"}, {"seed", "1"}}
	b.Settings = []report.Setting{{"speed", "1"}, {"seed", "2"}}
	c.Settings = b.Settings
	b.Notes = []string{"noted"}
	bc, err := report.Merge(b, c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := report.Merge(c, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Runs != 2 || s.Elapsed != a.Elapsed+bc.Elapsed || !s.Start.Equal(a.Start) {
		t.Errorf("%d runs of %s from %s, want 2 of %s from %s", s.Runs, s.Elapsed, s.Start, a.Elapsed+bc.Elapsed, a.Start)
	}
	if got, want := s.Ended().Count, a.Ended().Count+b.Ended().Count+c.Ended().Count; got != want {
		t.Errorf("%d requests, want %d", got, want)
	}
	if g := s.Generator; g.Sent != 30 || g.MaxInFlight != 40 || bc.Generator.MaxInFlight != 30 {
		t.Errorf("the sender had %+v, that of one run %+v", g, bc.Generator)
	}
	if n, want := len(s.Series.Slices), int(s.Elapsed/s.Series.Width); n < want || n > want+3 {
		t.Errorf("%d slices of %s for %s", n, s.Series.Width, s.Elapsed)
	}
	if s.Title != "cache" || !slices.Equal(s.Settings, []report.Setting{{"speed", "1"}}) || !slices.Equal(s.Notes, []string{"noted"}) {
		t.Errorf("title %q, settings %v, notes %q", s.Title, s.Settings, s.Notes)
	}
}

// TestJSON reads back what is written: nothing is lost.
func TestJSON(t *testing.T) {
	r := record(results(1, 5000, start)...)
	r.Generator(load.Stats{Sent: 5000, MaxInFlight: 12, LagP99: time.Second, Saturated: []string{"late"}})
	for name, s := range map[string]*report.Summary{"full": r.Snapshot(), "empty": report.New(nil).Snapshot()} {
		s.Title, s.Notes = "a title", []string{"a note"}
		want := text(t, s)
		got, err := report.Read(bytes.NewReader([]byte(want)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again := text(t, got); again != want {
			t.Errorf("%s: after reading\n%s\nwant\n%s", name, again, want)
		}
		// What was read merges like what was recorded.
		twice, err := report.Merge(got, s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if twice.Ended().Count != 2*s.Ended().Count {
			t.Errorf("%s: merged with itself has %d requests", name, twice.Ended().Count)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	good := text(t, record(results(1, 100, start)...).Snapshot())
	change := func(f func(map[string]any)) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(good), &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	series := func(m map[string]any) map[string]any { return m["series"].(map[string]any) }
	for name, s := range map[string]string{
		"nothing":        "",
		"other file":     `[{"time": 1}]`,
		"version":        change(func(m map[string]any) { m["version"] = 2 }),
		"cut off":        good[:len(good)/2],
		"elapsed":        change(func(m map[string]any) { m["elapsed"] = -1 }),
		"histogram":      change(func(m map[string]any) { m["lag"].(map[string]any)["hdr"] = "AAAA" }),
		"count":          change(func(m map[string]any) { m["lag"].(map[string]any)["count"] = 3 }),
		"no histogram":   change(func(m map[string]any) { delete(m["lag"].(map[string]any), "hdr") }),
		"sizes as times": change(func(m map[string]any) { m["lag"] = m["sizes"].(map[string]any)["blob"] }),
		"times as sizes": change(func(m map[string]any) { m["sizes"].(map[string]any)["blob"] = m["lag"] }),
		"group": change(func(m map[string]any) {
			m["groups"].([]any)[0].(map[string]any)["service"] = map[string]any{"count": 1}
		}),
		"width":    change(func(m map[string]any) { series(m)["width"] = 12345 }),
		"width 3":  change(func(m map[string]any) { series(m)["width"] = 300e6 }),
		"no width": change(func(m map[string]any) { series(m)["width"] = 0 }),
		"slices":   change(func(m map[string]any) { series(m)["slices"] = make([]struct{}, 601) }),
		"far away": change(func(m map[string]any) { series(m)["first"] = int64(1) << 62 }),
		"slice":    change(func(m map[string]any) { series(m)["slices"].([]any)[0].(map[string]any)["latency"] = m["lag"] }),
	} {
		if got, err := report.Read(bytes.NewReader([]byte(s))); err == nil {
			t.Errorf("%s: read %+v", name, got)
		}
	}
	if _, err := report.Merge(); err == nil {
		t.Error("merged nothing")
	}
	if _, err := report.Merge(&report.Summary{}); err == nil {
		t.Error("merged a summary that is none")
	}
}
