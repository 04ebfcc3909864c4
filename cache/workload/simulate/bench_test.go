package simulate_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// processorTime is what the process has used of the processors. A share of one that
// others take does not count, so that a rate by it is one of a whole core.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bareMap counts the accesses to objects that were there before: what a simulation
// without any limit would have to do at least, of the ready numbers of objects.
func bareMap(d *simulate.Decoded) (hits int) {
	seen := make(map[uint32]int64)
	for i, a := range d.Accesses.All() {
		if _, ok := seen[a.ID]; ok {
			hits++
		}
		seen[a.ID] = int64(i)
	}
	return hits
}

// BenchmarkSimulateLRU simulates LRU over what was recorded, on one core, and in turns
// with it runs a bare loop over a map; both in requests a second of processor time.
func BenchmarkSimulateLRU(b *testing.B) {
	d := real(b)
	for _, percent := range []float64{1, 10} {
		b.Run(fmt.Sprintf("%g%%", percent), func(b *testing.B) {
			var ours, bare []float64
			rate := func(began time.Duration) float64 {
				return float64(d.Accesses.Len()) / (processorTime(b) - began).Seconds() / 1e6
			}
			for b.Loop() {
				began := processorTime(b)
				_, err := simulate.Run(b.Context(), d, simulate.Config{
					Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Share: percent / 100}}, Workers: 1,
				})
				if err != nil {
					b.Fatal(err)
				}
				ours = append(ours, rate(began))
				began = processorTime(b)
				if bareMap(d) == 0 {
					b.Fatal("nothing was read twice")
				}
				bare = append(bare, rate(began))
			}
			slices.Sort(ours)
			slices.Sort(bare)
			b.ReportMetric(ours[len(ours)/2], "Mreq/s")
			b.ReportMetric(bare[len(bare)/2], "map-Mreq/s")
		})
	}
}
