package report_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// TestParallel records, looks and merges at the same time.
func TestParallel(t *testing.T) {
	r := report.New(bases)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for _, x := range results(uint64(i), 500, start) {
				r.Add(x)
			}
			r.Merge(record(results(uint64(i), 100, start)...))
		})
		wg.Go(func() {
			for range 20 {
				if s := r.Snapshot(); s.Ended().Count > 2400 {
					t.Error("too many")
				}
				_ = r.Totals()
			}
		})
	}
	wg.Wait()
	if got := r.Totals(); got.Requests != 2400 || got.Due != start.Add(499*20*time.Millisecond) {
		t.Errorf("totals %+v", got)
	}
}

func TestTotals(t *testing.T) {
	ok := load.Result{Intended: start, Sent: start.Add(time.Millisecond), Late: time.Millisecond, Bytes: 10, Outcome: "hit"}
	stale, miss, passed, failed, lost := ok, ok, ok, ok, ok
	stale.Outcome, miss.Outcome, passed.Outcome = "stale", "partial", "passed"
	failed.Cause = load.CauseStatus
	lost.Cause, lost.Sent, lost.Bytes = load.CauseLost, time.Time{}, 0
	got := record(ok, stale, miss, passed, failed, lost).Totals()
	want := report.Totals{Requests: 6, Failed: 2, Bytes: 50, Hits: 2, Misses: 1, Lag: time.Millisecond, Due: start}
	if got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
}

// TestOnTime: a failure is never on time, and neither is what is sent late.
func TestOnTime(t *testing.T) {
	at := func(lag time.Duration, c load.Cause) load.Result {
		return load.Result{Intended: start, Sent: start.Add(lag), Late: lag, Cause: c}
	}
	s := record(at(0, ""), at(report.OnTime, ""), at(report.OnTime+1, ""), at(0, load.CauseCut)).Snapshot()
	if s.OnTime != 2 {
		t.Errorf("%d on time, want 2", s.OnTime)
	}
}

// TestHostile gives names and times that no registry should.
func TestHostile(t *testing.T) {
	r := report.New(bases)
	for i := range 10_000 {
		r.Add(load.Result{
			Op: load.Get, Kind: trace.Kind(i), Registry: i - 5000, Status: i - 20, Outcome: fmt.Sprint("out\ncome\xff", i),
			Intended: start, Sent: start, Service: -time.Second, Latency: 1 << 62, Bytes: -int64(i),
		})
		r.Add(load.Result{
			Kind: trace.Blob, Status: i, Cause: load.CauseStatus, Err: strings.Repeat("é\n", i%1000), Bytes: 1 << 62,
			Intended: start.Add(time.Duration(i*i) * time.Hour), Sent: start.Add(-time.Duration(i) * time.Hour),
		})
	}
	s := r.Snapshot()
	if n := len(s.Groups); n > 7*17*6*3*2 {
		t.Errorf("%d groups", n)
	}
	if n := len(s.Failures); n > 257 {
		t.Errorf("%d failures", n)
	}
	for _, f := range s.Failures {
		if len(f.Example) > 300 {
			t.Fatalf("an example of %d bytes", len(f.Example))
		}
		if !utf8.ValidString(f.Example) || strings.Contains(f.Example, "\n") {
			t.Fatalf("example %q", f.Example)
		}
	}
	if n := len(s.Series.Slices); n > 600 {
		t.Errorf("%d slices", n)
	}
	if got := s.Total("", func(report.Key) bool { return true }); got.Count != 20_000 || got.Service.Count() != 20_000 {
		t.Errorf("%d requests, %d times", got.Count, got.Service.Count())
	}
}

// TestMemory is flat: a long run takes as much as a short one.
func TestMemory(t *testing.T) {
	r := report.New(bases)
	heap := func(from, n int) uint64 {
		for i := range n {
			at := start.Add(time.Duration(from+i) * 50 * time.Millisecond)
			r.Add(load.Result{
				Op: load.Get, Kind: trace.Blob, Status: 200, Outcome: "hit", Bytes: int64(i), Intended: at, Sent: at,
				Service: time.Duration(i) * time.Microsecond, Latency: time.Duration(i) * time.Microsecond,
			})
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	short := heap(0, 50_000)
	long := heap(50_000, 1_000_000)
	if long > short+32<<20 {
		t.Errorf("heap of %d bytes after 1050000 results, %d after 50000", long, short)
	}
	t.Logf("heap %d and %d bytes", short, long)
	runtime.KeepAlive(r)
}

func BenchmarkAdd(b *testing.B) {
	all := results(1, 100_000, start)
	r := report.New(bases)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.Add(all[i%len(all)])
		i++
	}
}

func BenchmarkSnapshot(b *testing.B) {
	r := record(results(1, 100_000, start)...)
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Snapshot()
	}
}

func BenchmarkJSON(b *testing.B) {
	s := record(results(1, 100_000, start)...).Snapshot()
	var text bytes.Buffer
	for b.Loop() {
		text.Reset()
		if err := s.WriteJSON(&text); err != nil {
			b.Fatal(err)
		}
		if _, err := report.Read(bytes.NewReader(text.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(text.Len()), "bytes")
}
