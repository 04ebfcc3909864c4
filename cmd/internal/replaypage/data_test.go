package replaypage_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// pageRun is what a replay of five minutes against a cache may find that gets warm,
// stalls every minute and breaks once. hostile is put wherever others choose a text.
func pageRun(hostile string) *report.Summary {
	r := rand.New(rand.NewPCG(1, 2))
	bases := []string{"http://cache-1:5000" + hostile, "http://cache-2:5000"}
	rec := report.New(bases)
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, at := 0, 0.0; at < 300; i++ {
		at += r.ExpFloat64() / (60 + 30*math.Sin(at/40))
		x := load.Result{
			Seq: uint64(i), Op: load.Get, Kind: trace.Blob, Status: 200, Registry: i % 2,
			Intended: start.Add(time.Duration(at * 1e9)), Outcome: "miss",
			Bytes:   int64(math.Exp(9.5 + 3*r.NormFloat64())),
			Service: time.Duration(math.Exp(math.Log(20e6) + .8*r.NormFloat64())),
		}
		switch n := r.IntN(100); {
		case n < 25:
			x.Kind, x.Bytes = trace.Manifest, 400+r.Int64N(4000)
		case n < 35:
			x.Kind, x.Op, x.Outcome, x.Bytes = trace.Ping, load.Get, "", 2
		case n < 42:
			x.Kind, x.Op, x.Outcome, x.Status = trace.Upload, load.Push, "", 201
		case n < 50:
			x.Ranged, x.Status, x.Bytes = true, 206, 4096<<r.IntN(6)
		}
		if x.Outcome != "" && r.Float64() < .75*(1-math.Exp(-at/60)) {
			x.Outcome, x.Service = "hit", x.Service/12
		}
		x.Late = time.Duration(r.ExpFloat64() * 200e3)
		// A stall holds up all that is asked for in it.
		if into := math.Mod(at, 60); into > 50 && into < 52 {
			x.Service += time.Duration((52 - into) * 1e9)
		}
		if at > 200 && at < 212 && r.IntN(3) == 0 {
			x.Status, x.Cause, x.Outcome, x.Bytes, x.Err = 503, load.CauseStatus, "", 0, "503 Service Unavailable: "+hostile
			if r.IntN(4) == 0 {
				x.Status, x.Cause, x.Err = 0, load.CauseConnect, "dial tcp 10.0.0.1:5000: connect: connection refused"
			}
		}
		if at > 299.9 {
			x.Status, x.Cause, x.Outcome, x.Err = 0, load.CauseAborted, "", "the run ended"
		}
		x.Sent = x.Intended.Add(x.Late)
		x.Latency = x.Late + x.Service
		rec.Add(x)
	}
	rec.Generator(load.Stats{Sent: uint64(rec.Totals().Requests), MaxInFlight: 412, LagP99: time.Millisecond, Tokens: 12})
	s := rec.Snapshot()
	s.Settings = []report.Setting{
		{Name: "trace", Value: "prod-dal09-logstash-2017.06.20-0.json" + hostile}, {Name: "loop", Value: "open, speed 20"}, {Name: "seed", Value: "1"},
	}
	s.Notes = []string{"1 204 requests of the trace were left out: not in the interim map" + hostile}
	return s
}

// pageSimulation is a simulation of blobs that are as popular as a Zipf law says.
func pageSimulation(t *testing.T) *simulate.Report {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	popular := rand.NewZipf(r, 1.05, 3, 5000)
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var all []trace.Request
	for i := range 40_000 {
		id := popular.Uint64()
		all = append(all, trace.Request{
			Delay: time.Duration(i) * time.Second, Time: start.Add(time.Duration(i) * time.Second), Method: "GET", Status: 200,
			URI: fmt.Sprintf("v2/u/r%d/blobs/%08x", id%40, id), Client: fmt.Sprint("c", r.IntN(9)),
			Size: int64(1000 * math.Exp(float64(id*7919%10))),
		})
	}
	d, err := simulate.Decode(t.Context(), trace.Of(all...), simulate.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []simulate.Size{{Share: .01}, {Share: .05}, {Share: .1}, {Share: .25}, {Share: .5}}
	s, err := simulate.Run(t.Context(), d, simulate.Config{
		Policies: []string{"lru", "fifo", "sieve", "s3fifo", simulate.Belady}, Sizes: sizes,
		Levels:  []simulate.Levels{{Memory: sizes[0], Disk: sizes[2], Policy: "lru"}},
		PerNode: sizes[:1],
		Cluster: simulate.Cluster{Replicas: []int{1, 10, 100}, L1: sizes[1], L2: sizes[3], Rate: 50, Upstream: simulate.Line{Latency: time.Second}},
		Curve:   simulate.CurveConfig{Exact: true, Shards: []float64{.1}, Points: 60},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// emptyRun is one in which no request was sent.
func emptyRun() *report.Summary { return report.New([]string{"http://a"}).Snapshot() }
