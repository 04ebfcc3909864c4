package tracelayer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/reprise-containers/reprise/tracelayer"
)

// mergeScript is the state of one test file. Its commands:
//
//	recording [age=DURATION]      a recording; its input are lines of
//	                              LAYER OFFSET+COUNT, or OP LAYER OFFSET+COUNT
//	merge [half-life=D] [share=F] merges the recordings so far, and forgets them
//	weights [half-life=D]         what each of them counts
type mergeScript struct {
	recordings []tracelayer.Recording
}

func TestMerge(t *testing.T) {
	datadriven.Walk(t, "testdata/merge", func(t *testing.T, path string) {
		s := &mergeScript{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.run(t, d)
		})
	})
}

func (s *mergeScript) run(t *testing.T, d *datadriven.TestData) string {
	var cfg tracelayer.MergeConfig
	duration := func(name string) (v time.Duration) {
		var text string
		if d.MaybeScanArgs(t, name, &text); text != "" {
			var err error
			if v, err = time.ParseDuration(text); err != nil {
				d.Fatalf(t, "%v", err)
			}
		}
		return v
	}
	cfg.HalfLife = duration("half-life")
	if text := ""; d.MaybeScanArgs(t, "share", &text) {
		if _, err := fmt.Sscan(text, &cfg.MinShare); err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	switch d.Cmd {
	case "recording":
		now := time.Unix(1_700_000_000, 0)
		r := tracelayer.Recording{Time: now.Add(-duration("age"))}
		for line := range strings.Lines(d.Input) {
			r.Trace = append(r.Trace, parseRecord(t, d, line))
		}
		s.recordings = append(s.recordings, r)
		return ""
	case "weights":
		return fmt.Sprintf("%.3f\n", cfg.Weights(s.recordings))
	case "merge":
		var out strings.Builder
		for _, r := range tracelayer.Merge(s.recordings, cfg) {
			fmt.Fprintf(&out, "%d %d+%d\n", r.Layer, r.Off, r.Count)
			if r.Op != tracelayer.Read {
				fmt.Fprintf(&out, "is no read: %q\n", r.Op)
			}
		}
		s.recordings = nil
		return out.String()
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return ""
}

func parseRecord(t *testing.T, d *datadriven.TestData, line string) tracelayer.Record {
	r := tracelayer.Record{Op: tracelayer.Read}
	fields := strings.Fields(line)
	if len(fields) == 3 {
		r.Op, fields = tracelayer.Op(fields[0][0]), fields[1:]
	}
	if _, err := fmt.Sscanf(strings.Join(fields, " "), "%d %d+%d", &r.Layer, &r.Off, &r.Count); err != nil {
		d.Fatalf(t, "%q: %v", line, err)
	}
	return r
}

// TestMergeKeepsBytes compares which bytes are kept with a count for each byte.
func TestMergeKeepsBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		recordings := make([]tracelayer.Recording, 1+rng.IntN(5))
		readers := map[[2]int64]int{} // layer and byte: recordings that read it
		for i := range recordings {
			mine := map[[2]int64]bool{}
			for range rng.IntN(30) {
				r := tracelayer.Record{Op: tracelayer.Read, Layer: rng.Uint32N(3), Off: rng.Int64N(200), Count: 1 + rng.Int64N(40)}
				recordings[i].Trace = append(recordings[i].Trace, r)
				for b := r.Off; b < r.Off+r.Count; b++ {
					mine[[2]int64{int64(r.Layer), b}] = true
				}
			}
			for b := range mine {
				readers[b]++
			}
		}
		share := []float64{-1, 0.3, 0, 1}[rng.IntN(4)]
		got := tracelayer.Merge(recordings, tracelayer.MergeConfig{MinShare: share})
		if share == 0 {
			share = 0.45
		}
		for _, r := range got {
			for b := r.Off; b < r.Off+r.Count; b++ {
				key := [2]int64{int64(r.Layer), b}
				if float64(readers[key]) < share*float64(len(recordings))-1e-6 || readers[key] == 0 {
					t.Fatalf("round %d: byte %v is kept, or comes twice", round, key)
				}
				delete(readers, key)
			}
		}
		for b, n := range readers {
			if float64(n) >= share*float64(len(recordings)) {
				t.Fatalf("round %d: byte %v, read by %d of %d, is missing", round, b, n, len(recordings))
			}
		}
	}
}

func TestMergeConfig(t *testing.T) {
	for _, share := range []float64{math.NaN(), 1.01} {
		if err := (tracelayer.MergeConfig{MinShare: share}).Validate(); err == nil {
			t.Errorf("a share of %g is accepted", share)
		}
	}
	for _, share := range []float64{-1, 0, 1} {
		if err := (tracelayer.MergeConfig{MinShare: share}).Validate(); err != nil {
			t.Errorf("a share of %g: %v", share, err)
		}
	}
}

// BenchmarkMerge merges ten recordings of ten thousand reads.
func BenchmarkMerge(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	recordings := make([]tracelayer.Recording, 10)
	for i := range recordings {
		for range 10_000 {
			recordings[i].Trace = append(recordings[i].Trace, tracelayer.Record{
				Op: tracelayer.Read, Layer: rng.Uint32N(5), Off: rng.Int64N(20_000) << 12, Count: 4096 << rng.IntN(5)})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		tracelayer.Merge(recordings, tracelayer.MergeConfig{})
	}
}
