package generate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/generate"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// made returns a trace.
func made(t testing.TB, cfg generate.Config) (out []trace.Request) {
	t.Helper()
	g, err := generate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := g.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
}

// within reports a figure that is not what was measured of recorded traffic.
func within(t *testing.T, what string, got, least, most float64) {
	t.Helper()
	t.Logf("%-50s %.4f (%.3f to %.3f)", what, got, least, most)
	if got < least || got > most {
		t.Errorf("%s: %.4f, want %.3f to %.3f", what, got, least, most)
	}
}

// counts returns how often each string is there, the most frequent first.
func counts(of []string) []int {
	n := map[string]int{}
	for _, s := range of {
		n[s]++
	}
	var out []int
	for _, c := range n {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out
}

// top returns the share of the requests that a share of the objects has.
func top(counts []int, share float64) float64 {
	sum, all := 0, 0
	for i, c := range counts {
		if i < int(share*float64(len(counts))) {
			sum += c
		}
		all += c
	}
	return float64(sum) / float64(all)
}

// seeds are those the gates are tried with: the first ones. Of the first ten, all are
// within the gates.
var seeds = func() []uint64 {
	if os.Getenv("TRIAL") == "full" {
		return []uint64{1, 2, 3}
	}
	return []uint64{1}
}()

// TestRecorded holds what is read, when again, and how large it is, against the
// recorded traffic.
func TestRecorded(t *testing.T) {
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			requests := made(t, generate.Config{Requests: 725_242, Seed: seed, ReadOnly: true})
			kinds := map[trace.Kind][]string{}
			for _, r := range requests {
				k := r.Target().Kind
				kinds[k] = append(kinds[k], r.URI)
			}
			all := float64(len(requests))
			within(t, "pings of GETs", float64(len(kinds[trace.Ping]))/all, .44, .48)
			within(t, "blobs of GETs", float64(len(kinds[trace.Blob]))/all, .33, .385)
			within(t, "manifests of GETs", float64(len(kinds[trace.Manifest]))/all, .17, .20)
			blobs := counts(kinds[trace.Blob])
			within(t, "top 1 % of blobs", top(blobs, .01), .38, .48)
			within(t, "top 10 % of blobs", top(blobs, .10), .56, .62)
			once := len(blobs) - slices.IndexFunc(blobs, func(n int) bool { return n == 1 })
			within(t, "blobs read once", float64(once)/float64(len(blobs)), .76, .90)
			within(t, "top 1 % of manifests", top(counts(kinds[trace.Manifest]), .01), .75, .90)
			within(t, "revalidations", revalidated(requests), .72, .80)
			within(t, "manifests asked for", float64(len(counts(kinds[trace.Manifest])))/float64(len(kinds[trace.Manifest])), .08, .12)
			shape(t, requests)
			hits(t, requests)
			sizesOf(t, requests)
		})
	}
}

// revalidated returns the share of manifest GETs that no read of a blob of their
// repository follows before its next manifest GET.
func revalidated(requests []trace.Request) float64 {
	open := map[string]bool{}
	manifests, pulls := 0, 0
	for _, r := range requests {
		switch x := r.Target(); x.Kind {
		case trace.Manifest:
			manifests++
			open[x.Repository] = true
		case trace.Blob:
			if open[x.Repository] {
				pulls++
				open[x.Repository] = false
			}
		}
	}
	return 1 - float64(pulls)/float64(manifests)
}

// shape holds who asks, where, and when against the recorded traffic.
func shape(t *testing.T, requests []trace.Request) {
	var repos, users, tags []string
	in := map[string]map[string]bool{} // repositories of a blob
	var perPull, gaps, took []float64
	open := map[string]float64{} // blobs since the manifest
	last := time.Duration(-1)
	for _, r := range requests {
		switch x := r.Target(); x.Kind {
		case trace.Manifest:
			tags = append(tags, x.Reference)
			if n := open[x.Repository]; n > 0 {
				perPull = append(perPull, n)
			}
			open[x.Repository] = 0
		case trace.Blob:
			user, _, _ := strings.Cut(x.Repository, "/")
			repos, users = append(repos, x.Repository), append(users, user)
			if in[x.Reference] == nil {
				in[x.Reference] = map[string]bool{}
			}
			in[x.Reference][x.Repository] = true
			if n, ok := open[x.Repository]; ok {
				open[x.Repository] = n + 1
			}
			if last >= 0 {
				gaps = append(gaps, (r.Delay - last).Seconds())
			}
			last = r.Delay
			took = append(took, r.Duration.Seconds())
		}
	}
	several := 0
	for _, at := range in {
		if len(at) > 1 {
			several++
		}
	}
	within(t, "blobs in several repositories", float64(several)/float64(len(in)), .11, .17)
	within(t, "top 1 % of repositories, of blobs", top(counts(repos), .01), .40, .54)
	within(t, "top 1 % of users, of blobs", top(counts(users), .01), .58, .74)
	within(t, "the common tag, of manifests", float64(counts(tags)[0])/float64(len(tags)), .43, .53)
	within(t, "blobs of a pull, mean", mean(perPull), 6.3, 8.4)
	within(t, "blobs of a pull, median", quantile(perPull, .5), 4, 5)
	within(t, "blobs of a pull, p99", quantile(perPull, .99), 35, 50)
	// Of the sample of 21 minutes: bursts, and what a registry of 2017 took.
	within(t, "gap between blobs, variation", deviation(gaps)/mean(gaps), 1.8, 3.2)
	within(t, "gap between blobs, median, s", quantile(gaps, .5), .25, .5)
	within(t, "gap between blobs, p99, s", quantile(gaps, .99), 8, 18)
	within(t, "service, median, s", quantile(took, .5), .9, 1.15)
	within(t, "service, p75, s", quantile(took, .75), 1.9, 3.3)
	within(t, "service, p90, s", quantile(took, .9), 13, 19)
}

func mean(of []float64) (m float64) {
	for _, x := range of {
		m += x / float64(len(of))
	}
	return m
}

func deviation(of []float64) float64 {
	m, square := mean(of), 0.0
	for _, x := range of {
		square += (x - m) * (x - m) / float64(len(of))
	}
	return math.Sqrt(square)
}

// quantile sorts and returns what a share is not above.
func quantile(of []float64, share float64) float64 {
	slices.Sort(of)
	return of[int(share*float64(len(of)-1))]
}

// hits holds the hit ratios of LRU against those of the recorded traffic.
func hits(t *testing.T, requests []trace.Request) {
	d, err := simulate.Decode(t.Context(), trace.Of(requests...), simulate.Scope{
		Kinds: []trace.Kind{trace.Blob}, Key: simulate.ByURI, Unit: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[float64]float64{.01: .400, .02: .451, .04: .508, .10: .553}
	var cfg simulate.Config
	cfg.Policies = []string{policy.NameLRU}
	for share := range want {
		cfg.Sizes = append(cfg.Sizes, simulate.Size{Share: share})
	}
	r, err := simulate.Run(t.Context(), d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cells {
		w := want[c.Size.Share]
		within(t, "LRU at "+c.Size.String(), c.All.Ratio(), w-.03, w+.03)
	}
	byID, err := simulate.Decode(t.Context(), trace.Of(requests...), simulate.Scope{Kinds: []trace.Kind{trace.Blob}, Unit: true})
	if err != nil {
		t.Fatal(err)
	}
	all := float64(d.Accesses.Len())
	within(t, "first reads by URI", float64(d.Objects())/all, .38, .45)
	within(t, "first reads by blob", float64(byID.Objects())/all, .28, .35)
}

// sizesOf holds the sizes that are asked for against the recorded ones.
func sizesOf(t *testing.T, requests []trace.Request) {
	var sizes []float64
	of := map[string]int64{}
	sum := 0.0
	for _, r := range requests {
		x := r.Target()
		if x.Kind != trace.Blob {
			continue
		}
		if was, ok := of[x.Reference]; ok && was != r.Size {
			t.Fatalf("%s has %d bytes, and then %d", r.URI, was, r.Size)
		}
		of[x.Reference] = r.Size
		sizes = append(sizes, float64(r.Size))
		sum += float64(r.Size)
	}
	for limit, want := range map[float64]float64{
		130: .05, 181: .10, 1100: .25, 11_500: .50, 645_000: .65, 1e6: .661, 3.35e6: .75, 10e6: .805, 64 << 20: .9395, 256 << 20: .9948,
	} {
		n := 0
		for _, s := range sizes {
			if s <= limit {
				n++
			}
		}
		within(t, fmt.Sprintf("requests for up to %.0f bytes", limit), float64(n)/float64(len(sizes)), want-.02, want+.02)
	}
	within(t, "mean size, MB", sum/float64(len(sizes))/1e6, 12, 17)
}

// The mix of the whole archive, with pushes, and the rate that was asked for.
func TestMix(t *testing.T) {
	requests := made(t, generate.Config{Requests: 150_000, Rate: 20, Seed: 1})
	methods, statuses := map[string]float64{}, map[int]float64{}
	pulledAfter := map[string]bool{}
	pushed := map[string]bool{}
	for i, r := range requests {
		methods[r.Method] += 1 / float64(len(requests))
		statuses[r.Status] += 1 / float64(len(requests))
		switch {
		case r.Method == "PUT" && r.Target().Kind == trace.Manifest:
			pushed[r.URI] = true
		case r.Method == "GET" && pushed[r.URI]:
			pulledAfter[r.URI] = true
		}
		if i > 0 && r.Delay < requests[i-1].Delay {
			t.Fatalf("request %d is before the one before it", i)
		}
	}
	within(t, "GET", methods["GET"], .75, .83)
	within(t, "HEAD", methods["HEAD"], .08, .14)
	within(t, "PUT", methods["PUT"], .03, .07)
	within(t, "POST", methods["POST"], .015, .045)
	within(t, "PATCH", methods["PATCH"], .01, .03)
	// The archive has these: no refusal, nothing that was not found.
	within(t, "status 200", statuses[200], .87, .93)
	within(t, "status 201", statuses[201], .04, .08)
	within(t, "status 202", statuses[202], .025, .055)
	within(t, "status 200, 201 and 202", statuses[200]+statuses[201]+statuses[202], 1-1e-9, 1+1e-9)
	// What is pushed is what is pulled then: caches can fetch it before.
	within(t, "pushed manifests that are asked for", float64(len(pulledAfter))/float64(len(pushed)), .22, 1)
	span := requests[len(requests)-1].Delay.Seconds()
	within(t, "requests a second", float64(len(requests))/span, 18, 22)
	// Requests come in bursts: an hour's are not those of a Poisson process.
	var gaps []float64
	for i := 1; i < len(requests); i++ {
		gaps = append(gaps, (requests[i].Delay - requests[i-1].Delay).Seconds())
	}
	within(t, "variation of the gaps", deviation(gaps)/mean(gaps), 1.05, 5)
}

// A manifest has one size, unless it is that of the tag that most repositories have.
func TestManifestSizes(t *testing.T) {
	sizes := map[string]map[int64]bool{}
	for _, r := range made(t, generate.Config{Requests: 60_000, Seed: 3}) {
		if r.Target().Kind == trace.Manifest {
			if sizes[r.URI] == nil {
				sizes[r.URI] = map[int64]bool{}
			}
			sizes[r.URI][r.Size] = true
		}
	}
	moves, tags := map[string]bool{}, map[string]int{}
	for uri, s := range sizes {
		x := trace.Parse(uri)
		tags[x.Reference]++
		if len(s) > 1 {
			moves[x.Reference] = true
		}
	}
	for tag := range moves {
		if tags[tag] < 100 {
			t.Errorf("the manifest of tag %s, in %d repositories, has several sizes", tag, tags[tag])
		}
	}
	if len(moves) > 1 || len(sizes) < 500 {
		t.Errorf("of %d manifests, those of %d tags have several sizes", len(sizes), len(moves))
	}
}

// The highest rate goes on, and keeps to itself.
func TestHighestRate(t *testing.T) {
	requests := made(t, generate.Config{Requests: 20_000, Rate: 1e6, Seed: 1})
	if last := requests[len(requests)-1].Delay; last > time.Second {
		t.Errorf("20000 requests took %v", last)
	}
}

// The same seed gives the same trace, another another; what is written is read again.
func TestDeterminism(t *testing.T) {
	text := func(seed uint64) string {
		var b bytes.Buffer
		w := trace.NewWriter(&b)
		for _, r := range made(t, generate.Config{Requests: 5000, Seed: seed}) {
			if err := w.Write(r.Record()); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	one := text(1)
	if one != text(1) {
		t.Error("a seed gives two traces")
	}
	if one == text(2) {
		t.Error("two seeds give one trace")
	}
	r, err := trace.NewReader(strings.NewReader(one), "made")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range made(t, generate.Config{Requests: 5000, Seed: 1}) {
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		got.Delay, want.Duration, got.Duration = want.Delay, 0, 0
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s became %s", b, a)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []generate.Config{{Requests: -1}, {Rate: -1}, {Rate: math.NaN()}, {Rate: math.Inf(1)}, {Rate: 1e10}, {Clients: -1}} {
		if _, err := generate.New(cfg); err == nil {
			t.Errorf("%+v is no error", cfg)
		}
	}
}

// State does not grow with the trace, but for the repositories.
func TestMemory(t *testing.T) {
	g, err := generate.New(generate.Config{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	heapAfter := func(n int) int64 {
		for range n {
			g.Next()
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	first := heapAfter(100_000)
	grown := heapAfter(250_000) - first
	t.Logf("%d bytes more for 250000 requests", grown)
	if grown > 1<<20 {
		t.Errorf("250000 requests more took %d bytes", grown)
	}
	runtime.KeepAlive(g)
}

func BenchmarkNext(b *testing.B) {
	g, err := generate.New(generate.Config{Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	for b.Loop() {
		g.Next()
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "req/s")
}
