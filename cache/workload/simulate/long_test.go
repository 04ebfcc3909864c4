package simulate_test

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// BenchmarkLong makes 20 million requests and simulates them, decoded and as a stream.
// Run it with -benchtime 1x and one of the two at a time: peak-MB is that of the
// process, cpu-s what it computed.
func BenchmarkLong(b *testing.B) {
	const n = 20_000_000
	sizes := []simulate.Size{{Bytes: 1 << 40}, {Bytes: 10 << 40}}
	report := func(b *testing.B, r *simulate.Report) {
		b.ReportMetric(peak(b), "peak-MB")
		b.ReportMetric(computed(b), "cpu-s")
		b.ReportMetric(float64(r.Requests)/1e6, "Maccesses")
		b.ReportMetric(float64(r.Objects)/1e6, "Mobjects")
	}
	b.Run("decoded", func(b *testing.B) {
		for b.Loop() {
			g, err := generate.New(generate.Config{Requests: n, Seed: 1})
			if err != nil {
				b.Fatal(err)
			}
			d, err := simulate.Decode(b.Context(), g, simulate.Scope{})
			if err != nil {
				b.Fatal(err)
			}
			r, err := simulate.Run(b.Context(), d, simulate.Config{
				Policies: []string{policy.NameLRU, policy.NameFIFO, policy.NameSIEVE, policy.NameS3FIFO, simulate.Belady},
				Sizes:    []simulate.Size{{Share: 0.01}, {Share: 0.04}, {Share: 0.1}, {Share: 0.2}},
				Curve:    simulate.CurveConfig{Exact: true, Shards: []float64{0.01}},
			})
			if err != nil {
				b.Fatal(err)
			}
			report(b, r)
		}
	})
	b.Run("stream", func(b *testing.B) {
		for b.Loop() {
			g, err := generate.New(generate.Config{Requests: n, Seed: 1})
			if err != nil {
				b.Fatal(err)
			}
			r, err := simulate.Stream(b.Context(), g, simulate.Scope{}, simulate.Config{Policies: []string{policy.NameLRU, policy.NameS3FIFO}, Sizes: sizes})
			if err != nil {
				b.Fatal(err)
			}
			report(b, r)
		}
	})
}

// computed returns the seconds of processor time the process has had.
func computed(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peak returns the most memory that the process had, in MB.
func peak(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	kib, _, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
	n, err := strconv.ParseFloat(kib, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n * 1024 / 1e6
}
