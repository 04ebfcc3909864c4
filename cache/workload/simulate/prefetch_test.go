package simulate_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// pushesAndPulls is random requests of some clients to some repositories. A layer has
// the same name and size whenever it is pushed or asked for, if named; otherwise
// pushes have names of their own.
func pushesAndPulls(seed uint64, n int, named bool) []trace.Request {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out []trace.Request
	at := time.Duration(0)
	for i := range n {
		at += time.Duration(rng.ExpFloat64() * float64(20*time.Second))
		repo, layer := rng.IntN(5), rng.IntN(40)
		r := trace.Request{Delay: at, Method: "GET", Client: fmt.Sprint(rng.IntN(6)), Size: int64(1000 + layer*700), Status: 200}
		r.URI = fmt.Sprintf("v2/r/%d/blobs/l%d", repo, layer)
		switch rng.IntN(4) {
		case 0:
			r.Method = "PUT"
			if !named {
				r.URI = fmt.Sprintf("v2/r/%d/blobs/uploads/u%d", repo, i)
			}
		case 1:
			r.URI, r.Size = fmt.Sprintf("v2/r/%d/manifests/t", repo), 500
		}
		out = append(out, r)
	}
	return out
}

// slowPrefetch is prefetching as on paper: all that is known is looked at each time.
type slowPrefetch struct {
	simulate.Prefetch
	layers  []slowLayer
	fetched []slowFetched
	cell    simulate.PrefetchCell
}

type slowLayer struct {
	at         time.Duration
	repo, name string
	size       int64
	clients    []string
}

type slowFetched struct {
	slowLayer
	used bool
}

func (s *slowPrefetch) same(a slowLayer, name string, size int64) bool {
	if s.Identity == simulate.ByLayer {
		return a.name == name
	}
	return a.size == size
}

func (s *slowPrefetch) done(f slowFetched) {
	if f.used {
		s.cell.Good++
		return
	}
	s.cell.Bad++
	s.cell.BadBytes += f.size
}

func (s *slowPrefetch) add(r trace.Request) {
	s.layers = slices.DeleteFunc(s.layers, func(l slowLayer) bool { return r.Delay-l.at > s.Pushed })
	s.fetched = slices.DeleteFunc(s.fetched, func(f slowFetched) bool {
		old := r.Delay-f.at > s.Fetched
		if old {
			s.done(f)
		}
		return old
	})
	t := trace.Parse(r.URI)
	switch {
	case r.Method == "PUT":
		s.cell.Pushes++
		s.layers = append(s.layers, slowLayer{r.Delay, t.Repository, t.Reference, r.Size, []string{r.Client}})
	case t.Kind == trace.Manifest:
		s.cell.Manifests++
		for i := range s.layers {
			l := &s.layers[i]
			if l.repo != t.Repository || slices.Contains(l.clients, r.Client) {
				continue
			}
			l.clients = append(l.clients, r.Client)
			k := slices.IndexFunc(s.fetched, func(f slowFetched) bool { return f.repo == l.repo && s.same(f.slowLayer, l.name, l.size) })
			if k >= 0 {
				s.fetched[k].at = r.Delay
				continue
			}
			s.fetched = append(s.fetched, slowFetched{slowLayer{at: r.Delay, repo: l.repo, name: l.name, size: l.size}, false})
			s.cell.Fetches++
			s.cell.FetchedBytes += l.size
			var kept int64
			for _, f := range s.fetched {
				kept += f.size
			}
			s.cell.Peak = max(s.cell.Peak, kept)
		}
	default:
		s.cell.Layers.Requests++
		s.cell.Layers.Bytes += r.Size
		best, off := -1, int64(1000)
		for i, f := range s.fetched {
			d := max(f.size-r.Size, r.Size-f.size)
			switch {
			case f.repo != t.Repository:
			case s.Identity == simulate.ByLayer && f.name == t.Reference:
				best = i
			case s.Identity == simulate.BySize && (d < off || d == off && best >= 0 && f.size < s.fetched[best].size):
				best, off = i, d
			}
		}
		if best >= 0 {
			s.fetched[best].used = true
			s.cell.Layers.Hits++
			s.cell.Layers.HitBytes += r.Size
		}
	}
}

func TestPrefetchAgainstPaper(t *testing.T) {
	for seed := range uint64(4) {
		for _, named := range []bool{true, false} {
			requests := pushesAndPulls(seed, 1200, named)
			var settings []simulate.Prefetch
			for _, pushed := range []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour} {
				for _, fetched := range []time.Duration{5 * time.Minute, 30 * time.Minute, 24 * time.Hour} {
					settings = append(settings, simulate.Prefetch{Pushed: pushed, Fetched: fetched, Identity: simulate.BySize, Tolerance: 1000})
					if named {
						settings = append(settings, simulate.Prefetch{Pushed: pushed, Fetched: fetched, Identity: simulate.ByLayer, Tolerance: 1000})
					}
				}
			}
			p, err := simulate.NewPrefetcher(settings...)
			if err != nil {
				t.Fatal(err)
			}
			// It hears all that is decoded, and what is not.
			if _, err := simulate.Decode(t.Context(), p.Through(trace.Of(requests...)), simulate.Scope{}); err != nil {
				t.Fatal(err)
			}
			for i, got := range p.Cells() {
				slow := slowPrefetch{Prefetch: settings[i], cell: simulate.PrefetchCell{Prefetch: settings[i]}}
				for _, r := range requests {
					slow.add(r)
				}
				for _, f := range slow.fetched {
					slow.done(f)
				}
				if got != slow.cell {
					t.Errorf("seed %d, named %t: %+v\nwant %+v", seed, named, got, slow.cell)
				}
				if got.Layers.Hits == 0 {
					t.Errorf("seed %d: %+v never hits: this compares nothing", seed, settings[i])
				}
			}
		}
	}
}

func TestPrefetchValidate(t *testing.T) {
	for _, p := range []simulate.Prefetch{
		{}, {Pushed: 1, Fetched: 1}, {Pushed: 1, Fetched: 1, Identity: "name"}, {Pushed: -1, Fetched: 1, Identity: simulate.BySize},
		{Pushed: 1, Fetched: 1, Identity: simulate.BySize, Tolerance: -1},
	} {
		if _, err := simulate.NewPrefetcher(p); err == nil {
			t.Errorf("%+v is no error", p)
		}
	}
}

// The 16 lines are in the original's order, and differ because times are kept to.
func TestOriginalPrefetch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	var out strings.Builder
	err := simulate.OriginalPrefetch(t.Context(), trace.Of(pushesAndPulls(1, 10000, false)...), map[string]any{"outfile": path}, &out)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 16 || len(slices.Compact(slices.Clone(lines))) < 10 {
		t.Errorf("%d lines, hardly different:\n%s", len(lines), text)
	}
	var peaks []int64
	for _, line := range lines {
		var ratio float64
		var peak int64
		if _, err := fmt.Sscanf(line, "%f,%d", &ratio, &peak); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		peaks = append(peaks, peak)
	}
	for i := range 16 { // who keeps longer keeps more
		if i%4 > 0 && peaks[i] < peaks[i-1] || i > 3 && peaks[i] < peaks[i-4] {
			t.Errorf("peaks are not in order: %v", peaks)
		}
	}
	if err := simulate.OriginalPrefetch(t.Context(), trace.Of(), map[string]any{"outfile": path}, &out); err != nil {
		t.Errorf("of no requests: %v", err)
	}
	if err := simulate.OriginalPrefetch(t.Context(), trace.Of(), nil, &out); err == nil {
		t.Error("no outfile is no error")
	}
}
