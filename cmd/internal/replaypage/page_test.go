package replaypage_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage"
)

// said returns the texts of a page's elements that are of a class.
func said(t *testing.T, in replaypage.Input, class string) (all []string) {
	t.Helper()
	var b bytes.Buffer
	if err := replaypage.Write(&b, in); err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "class" && a.Val == class {
				var text []string
				for c := range n.Descendants() {
					if s := strings.TrimSpace(c.Data); c.Type == html.TextNode && s != "" {
						text = append(text, s)
					}
				}
				all = append(all, strings.Join(text, " "))
			}
		}
	}
	return all
}

// result is one of a run that takes two seconds and goes well.
func result(i int) load.Result {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(i) * 20 * time.Millisecond)
	return load.Result{
		Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: []string{"miss", "hit"}[min(i%4, 1)], Bytes: 1024,
		Intended: at, Sent: at, Service: 20 * time.Millisecond, Latency: 20 * time.Millisecond,
	}
}

func run(change func(i int, r *load.Result), n int) *report.Summary {
	rec := report.New([]string{"http://a"})
	for i := range n {
		r := result(i)
		change(i, &r)
		rec.Add(r)
	}
	return rec.Snapshot()
}

func TestTiles(t *testing.T) {
	s := run(func(int, *load.Result) {}, 2000)
	got := strings.Join(said(t, replaypage.Input{Run: s}, "tiles"), "")
	for _, want := range []string{
		"Requests 2\u202f000 0 failed", "Throughput 50.0/s", "Transferred 1.95 MiB 50.0 KiB/s", "Latency p99 20.0 ms service 20.0 ms",
		"Hit ratio 75 % 75 % of bytes", "On time 100 % p99 late 0 µs",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// TestVerdicts: what makes the figures doubtful is said before them.
func TestVerdicts(t *testing.T) {
	fine := run(func(int, *load.Result) {}, 100)
	if got := said(t, replaypage.Input{Run: fine}, "good"); len(got) != 1 || !strings.Contains(got[0], "No request failed") {
		t.Errorf("of a run that went well: %q", got)
	}
	failed := run(func(i int, r *load.Result) {
		if i < 10 {
			r.Cause, r.Status = load.CauseStatus, 500
		}
		if i == 99 {
			r.Cause, r.Status = load.CauseAborted, 0
		}
	}, 100)
	if got := said(t, replaypage.Input{Run: failed}, "bad"); len(got) != 1 || got[0] != "11 of 100 requests failed (11 %). The run cut off 1 of them." {
		t.Errorf("of failures: %q", got)
	}
	fine.Generator.Saturated = []string{"the processors were busy"}
	fine.Notes = []string{"noted"}
	in := replaypage.Input{Run: fine}
	if got := said(t, in, "bad"); len(got) != 1 || !strings.Contains(got[0], "the processors were busy") {
		t.Errorf("of a busy sender: %q", got)
	}
	if got := said(t, in, "note"); len(got) != 1 || got[0] != "noted" {
		t.Errorf("notes %q", got)
	}
	if got := said(t, in, "good"); len(got) != 0 {
		t.Errorf("a busy sender is praised: %q", got)
	}
}

// TestPrefetching: what was simulated of it is told, with its cost.
func TestPrefetching(t *testing.T) {
	in := replaypage.Input{Sim: &simulate.Report{Prefetch: []simulate.PrefetchCell{{
		Prefetch: simulate.Prefetch{Pushed: time.Hour, Fetched: 12 * time.Hour},
		Layers:   simulate.Tally{Requests: 8, Hits: 2, Bytes: 10, HitBytes: 5}, Fetches: 1234, FetchedBytes: 5 << 20, Good: 1, Bad: 3, Peak: 2 << 20,
	}}}}
	got := strings.Join(said(t, in, "numbers"), " ")
	for _, want := range []string{"1\u00a0h,\u00a012\u00a0h", "0.250", "0.500", "1\u202f234", "5.00\u00a0MiB", "2.00\u00a0MiB"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

var errFull = errors.New("disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFails(t *testing.T) {
	if err := replaypage.Write(full{}, replaypage.Input{}); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
}

// TestMergedRuns draws the series of runs that were laid one behind the other.
func TestMergedRuns(t *testing.T) {
	var runs []*report.Summary
	for day := range 3 {
		runs = append(runs, run(func(_ int, r *load.Result) {
			r.Intended = r.Intended.AddDate(0, 0, day)
			r.Sent = r.Intended
		}, 500))
	}
	s, err := report.Merge(runs...)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(said(t, replaypage.Input{Run: s}, "tiles"), "")
	if !strings.Contains(got, "1\u202f500") || !strings.Contains(got, "Throughput 50.0/s") {
		t.Errorf("tiles %q", got)
	}
}
