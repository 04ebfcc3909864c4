package simulate_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// recorded is a folder beside the source tree with what a registry was asked for.
const recorded = "../../../../shared/data"

// decoded is those requests, by URI and in objects.
var decoded = sync.OnceValues(func() (*simulate.Decoded, error) {
	f, err := trace.Open(trace.Config{Location: recorded, Files: []string{"ibm-registry-gets-725k.csv.zst"}})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return simulate.Decode(noContext, f, simulate.Scope{Key: simulate.ByURI, Unit: true})
})

func real(t testing.TB) *simulate.Decoded {
	t.Helper()
	d, err := decoded()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recorded requests beside the source tree: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// published are hit ratios that others found on the same requests: by kind and
// policy, at sizes in percent of the distinct objects.
var published = map[trace.Kind]map[string]map[float64]float64{
	trace.Blob: {
		policy.NameLRU:   {1: .400, 2: .451, 4: .508, 6: .532, 8: .546, 10: .553, 20: .566, 100: .582},
		policy.NameFIFO:  {1: .374, 2: .423, 4: .481, 6: .511, 8: .528, 10: .538, 20: .558, 100: .582},
		policy.NameSIEVE: {1: .437, 2: .460, 4: .488, 6: .502, 8: .522, 10: .516, 20: .566, 100: .582},
	},
	trace.Manifest: {
		policy.NameLRU:   {1: .830, 2: .857, 4: .879, 10: .895, 100: .902},
		policy.NameFIFO:  {1: .776, 2: .826, 4: .859, 10: .885, 100: .902},
		policy.NameSIEVE: {1: .854, 2: .871, 4: .880, 10: .890, 100: .902},
	},
}

// TestPublished finds every published ratio to three digits.
func TestPublished(t *testing.T) {
	t.Parallel()
	all := real(t)
	for kind, policies := range published {
		d := all.Of(kind)
		t.Logf("%s: %d requests of %d objects", kind, d.Accesses.Len(), d.Objects())
		for name, sizes := range policies {
			for percent, want := range sizes {
				r, err := simulate.Run(t.Context(), d, simulate.Config{
					Policies: []string{name}, Sizes: []simulate.Size{{Share: percent / 100}},
				})
				if err != nil {
					t.Fatal(err)
				}
				got := r.Cells[0].All.Ratio()
				if math.Abs(got-want) > 0.0005+1e-9 {
					t.Errorf("%s of %s at %g %%: %.5f, published is %.3f", name, kind, percent, got, want)
				}
			}
		}
	}
}

// TestNothingBeatsBelady on what was recorded.
func TestNothingBeatsBelady(t *testing.T) {
	t.Parallel()
	d := real(t).Of(trace.Blob)
	sizes := []simulate.Size{{Share: 0.01}, {Share: 0.1}}
	r, err := simulate.Run(t.Context(), d, simulate.Config{Policies: append(policy.Names(), simulate.Belady), Sizes: sizes})
	if err != nil {
		t.Fatal(err)
	}
	best := r.Cells[len(r.Cells)-len(sizes):]
	for i, c := range r.Cells {
		t.Logf("%-8s %4s %.4f", c.Policy, c.Size, c.All.Ratio())
		if b := best[i%len(sizes)]; c.All.Hits > b.All.Hits {
			t.Errorf("%s at %s has %d hits, %s %d", c.Policy, c.Size, c.All.Hits, simulate.Belady, b.All.Hits)
		}
	}
}

// The curves of LRU go through what LRU has at each size.
func TestCurve(t *testing.T) {
	t.Parallel()
	d := real(t).Of(trace.Blob)
	r, err := simulate.Run(t.Context(), d, simulate.Config{Curve: simulate.CurveConfig{Exact: true, Shards: []float64{0.01, 0.1}, Sample: 8192}})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range r.Curves[0].Points {
		if i%20 != 0 {
			continue
		}
		one, err := simulate.Run(t.Context(), d, simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Objects: p.Capacity}}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := 1-p.Miss, one.Cells[0].All.Ratio(); math.Abs(got-want) > 1e-9 {
			t.Errorf("with room for %d the curve has %.6f, LRU %.6f", p.Capacity, got, want)
		}
	}
	for _, c := range r.Curves[1:] {
		t.Logf("%s: %d objects, rate %.4f, mean error %.4f, of large caches %.4f", c.Name, c.Objects, c.Rate, c.MeanError, c.LargeError)
		if c.MeanError > 0.05 || c.LargeError > 0.02 {
			t.Errorf("%s is %.4f off the exact curve, and %.4f of large caches", c.Name, c.MeanError, c.LargeError)
		}
	}
}

// BenchmarkLRU is one core's requests a second over all that was recorded.
func BenchmarkLRU(b *testing.B) {
	d := real(b)
	for _, name := range policy.Names() {
		for _, percent := range []float64{1, 10} {
			b.Run(fmt.Sprintf("%s/%g%%", name, percent), func(b *testing.B) {
				for b.Loop() {
					_, err := simulate.Run(b.Context(), d, simulate.Config{
						Policies: []string{name}, Sizes: []simulate.Size{{Share: percent / 100}}, Workers: 1,
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*float64(d.Accesses.Len())/b.Elapsed().Seconds()/1e6, "Mreq/s")
			})
		}
	}
}
