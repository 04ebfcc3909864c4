package simulate_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// requestsOf returns a trace that decodes to d.
func requestsOf(d *simulate.Decoded) (out []trace.Request) {
	for _, a := range d.Accesses.All() {
		uri := fmt.Sprintf("v2/r/%ss/%d", d.Kinds[a.ID], a.ID)
		out = append(out, trace.Request{Delay: time.Duration(a.Time), Method: "GET", URI: uri, Size: d.Sizes[a.ID], Client: fmt.Sprint(a.Node)})
	}
	return out
}

// What is simulated while a trace is read is what is simulated afterwards.
func TestStreamIsRun(t *testing.T) {
	requests := requestsOf(stream(5, 80_000, 1500, false))
	for _, gc := range []simulate.GC{{}, {Disk: true}, {Layers: simulate.Ages{MaxUnused: 5 * time.Hour}, Manifests: simulate.Ages{MaxAge: time.Hour}}} {
		cfg := simulate.Config{Policies: []string{"lru", "s3fifo", "wtinylfu"}, Sizes: []simulate.Size{{Bytes: 20_000}, {Bytes: 3 << 20}}, GC: gc}
		d, err := simulate.Decode(t.Context(), trace.Of(requests...), simulate.Scope{})
		if err != nil {
			t.Fatal(err)
		}
		want := run(t, d, cfg)
		got, err := simulate.Stream(t.Context(), trace.Of(requests...), simulate.Scope{}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got.Most != want.Most || got.Objects != want.Objects || got.Bytes != want.Bytes || got.Nodes != want.Nodes || got.Span != want.Span || len(got.Sizes) != len(want.Sizes) {
			t.Errorf("%+v: the trace is %+v, of Run %+v", gc, got.Most, want.Most)
		}
		for i, c := range got.Cells {
			w := want.Cells[i]
			if c.All != w.All || c.Evicted != w.Evicted || c.Expired != w.Expired || c.Mean != w.Mean || fmt.Sprint(c.Kinds) != fmt.Sprint(w.Kinds) {
				t.Errorf("%+v, %s at %s: %+v of Stream, %+v of Run", gc, c.Policy, c.Size, c.All, w.All)
			}
			var sum uint64
			for _, p := range c.Over {
				sum += p.Requests
			}
			if sum != c.All.Requests || len(c.Over) > 200 || len(c.Over) < 100 {
				t.Errorf("%d parts of %d requests in all, of %d", len(c.Over), sum, c.All.Requests)
			}
		}
	}
}

// An object that turns out to be larger grows, and no capacity is passed for it.
func TestStreamGrows(t *testing.T) {
	var requests []trace.Request
	for i := range 150_000 { // blocks of 65536
		requests = append(requests, trace.Request{Method: "GET", URI: fmt.Sprintf("v2/r/blobs/%d", i%50), Size: 10, Off: int64(i / 1000), Len: 10})
	}
	r, err := simulate.Stream(t.Context(), trace.Of(requests...), simulate.Scope{}, simulate.Config{
		Policies: policy.Names(), Sizes: []simulate.Size{{Bytes: 6000}, {Bytes: 60_000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cells {
		small := c.Capacity < 50*159
		if c.Mean > c.Capacity || (c.Evicted > 0) != small {
			t.Errorf("%s of %d: %d in use, %d evicted", c.Policy, c.Capacity, c.Mean, c.Evicted)
		}
	}
	if r.Bytes != 50*159 {
		t.Errorf("%d bytes, want %d", r.Bytes, 50*159)
	}
}

func TestStreamErrors(t *testing.T) {
	one := trace.Request{Method: "GET", URI: "v2/r/blobs/x", Size: 1}
	for name, c := range map[string]struct {
		cfg  simulate.Config
		want error
	}{
		"share":  {simulate.Config{Policies: []string{"lru"}, Sizes: []simulate.Size{{Share: 0.1}}}, simulate.ErrWhole},
		"curve":  {simulate.Config{Curve: simulate.CurveConfig{Exact: true}}, simulate.ErrWhole},
		"levels": {simulate.Config{Levels: make([]simulate.Levels, 1)}, simulate.ErrWhole},
	} {
		if _, err := simulate.Stream(t.Context(), trace.Of(one), simulate.Scope{}, c.cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	if _, err := simulate.Stream(t.Context(), failing{broken}, simulate.Scope{}, simulate.Config{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	ages := simulate.GC{Layers: simulate.Ages{MaxAge: time.Hour}}
	cfg := simulate.Config{Policies: []string{"lru"}, Sizes: []simulate.Size{{Bytes: 10}}, GC: ages}
	if _, err := simulate.Stream(t.Context(), trace.Of(one), simulate.Scope{}, cfg); err == nil {
		t.Error("ages of a trace without times are no error")
	}
	cfg.GC = simulate.GC{}
	cfg.Policies = []string{"lru", simulate.Belady}
	r, err := simulate.Stream(t.Context(), trace.Of(one), simulate.Scope{}, cfg)
	if err != nil || r.Cells[0].Error != "" || r.Cells[1].Error == "" {
		t.Errorf("%+v: %v", r, err)
	}
}

type failing struct{ err error }

func (f failing) Next() (trace.Request, error) { return trace.Request{}, f.err }

// counted is a long trace of few objects that is made as it is read.
type counted struct{ n, i int }

func (c *counted) Next() (trace.Request, error) {
	if c.i == c.n {
		return trace.Request{}, io.EOF
	}
	c.i++
	id := uint32(c.i) * 2654435761 % 20_000
	return trace.Request{
		Delay: time.Duration(c.i) * time.Millisecond, Method: "GET", Size: int64(id%1000) + 1, Client: clients[id%8], URI: uris[id],
	}, nil
}

var (
	clients = [8]string{"a", "b", "c", "d", "e", "f", "g", "h"}
	uris    = func() (out [20_000]string) {
		for i := range out {
			out[i] = fmt.Sprintf("v2/r/blobs/%d", i)
		}
		return out
	}()
)

// A trace takes 16 bytes a request when it is decoded, and when it is streamed none.
func TestMemory(t *testing.T) {
	const n = 10 << 16 // blocks of accesses that are full
	inUse := func(f func()) int64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		f()
		runtime.GC()
		runtime.ReadMemStats(&after)
		return int64(after.HeapAlloc) - int64(before.HeapAlloc)
	}
	var d *simulate.Decoded
	var err error
	if took := inUse(func() { d, err = simulate.Decode(t.Context(), &counted{n: n}, simulate.Scope{}) }); err != nil || took > 17*n+2<<20 { // of which the names are a part
		t.Errorf("%d requests take %d bytes, %.1f each: %v", n, took, float64(took)/n, err)
	}
	runtime.KeepAlive(d)
	d = nil
	cfg := simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Bytes: 1 << 20}}}
	peak := &watched{r: &counted{n: n}, every: n / 4}
	if _, err := simulate.Stream(t.Context(), peak, simulate.Scope{}, cfg); err != nil {
		t.Fatal(err)
	}
	if first, last := peak.seen[0], peak.seen[len(peak.seen)-1]; last > first+1<<20 {
		t.Errorf("a stream took %d bytes at its beginning, and %d at its end", first, last)
	}
}

// watched looks how much memory is in use now and then.
type watched struct {
	r        trace.Reader
	i, every int
	seen     []uint64
}

func (w *watched) Next() (trace.Request, error) {
	if w.i++; w.i%w.every == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		w.seen = append(w.seen, m.HeapAlloc)
	}
	return w.r.Next()
}
