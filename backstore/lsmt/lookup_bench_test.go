package lsmt_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/lsmt"
)

// spread returns n segments over a disk. Even ones have gaps of random length
// between them; clustered ones come as on a disk that is mostly empty: a few
// dense regions far apart.
func spread(n int, clustered bool) (*lsmt.Image, int64) {
	rnd := rand.New(rand.NewPCG(1, 1))
	segments := make([]lsmt.Segment, n)
	at, mapped := int64(0), int64(8)
	for i := range segments {
		at += rnd.Int64N(40)
		if clustered && i%(n/7) == 0 {
			at += 1 << 30
		}
		length := 1 + rnd.Int64N(200)
		segments[i] = lsmt.Segment{Offset: at, Length: length, Mapped: mapped}
		at, mapped = at+length, mapped+length
	}
	return lsmt.NewImage(at*lsmt.SectorSize, segments), at
}

// BenchmarkLookup finds random sectors. The clustered image is asked for
// sectors of its segments, because random ones would lie in the gaps.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		for _, clustered := range []bool{false, true} {
			name := map[bool]string{false: "even", true: "clustered"}[clustered]
			b.Run(fmt.Sprintf("%d-%s", n, name), func(b *testing.B) {
				image, end := spread(n, clustered)
				rnd := rand.New(rand.NewPCG(2, 2))
				var starts []int64
				for s := range image.Segments() {
					starts = append(starts, s.Offset)
				}
				sectors := make([]int64, 1<<16)
				for i := range sectors {
					sectors[i] = rnd.Int64N(end)
					if clustered {
						sectors[i] = starts[rnd.IntN(n)]
					}
				}
				found := 0
				var rates []float64
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for b.Loop() {
					start := cpuTime(b)
					for _, sector := range sectors {
						found += image.Find(sector)
					}
					rates = append(rates, float64(len(sectors))/(cpuTime(b)-start).Seconds()/1e6)
				}
				// The median, because there is other work on the machine.
				slices.Sort(rates)
				b.ReportMetric(rates[len(rates)/2], "Mlookups/s")
				b.ReportMetric(float64(image.IndexBytes())/float64(n), "bytes/segment")
				if found == 0 {
					b.Error("found nothing")
				}
			})
		}
	}
}

// cpuTime returns how long this thread has been running.
func cpuTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
