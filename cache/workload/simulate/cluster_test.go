package simulate_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// sharing is a cluster whose fetches take some requests' time.
func sharing(replicas ...int) simulate.Cluster {
	return simulate.Cluster{
		Replicas: replicas, Spread: simulate.ByTurn, L1: simulate.Size{Share: 0.1}, L2: simulate.Size{Share: 0.3},
		Upstream: simulate.Line{Latency: time.Minute, Rate: 10}, Peer: simulate.Line{Latency: time.Second, Rate: 100}, Tier: simulate.Line{Latency: 10 * time.Second, Rate: 50},
		LeaseTTL: 30 * time.Second,
	}
}

func clusters(t testing.TB, d *simulate.Decoded, c simulate.Cluster) []simulate.ClusterCell {
	t.Helper()
	return run(t, d, simulate.Config{Cluster: c}).Cluster
}

// One replica, with or without an index to itself, is the cache that is simulated alone:
// exactly, if fetches take no time; else some of its misses join those before.
func TestClusterOfOne(t *testing.T) {
	for _, name := range some {
		for seed := range uint64(5) {
			d := stream(seed, 4000, 300, false)
			r := run(t, d, simulate.Config{Policies: []string{name}, Sizes: []simulate.Size{{Share: 0.1}}, Cluster: simulate.Cluster{
				Replicas: []int{1}, Policy: name, L1: simulate.Size{Share: 0.1},
			}})
			alone := r.Cells[0]
			for _, c := range r.Cluster {
				if c.Hits.Requests != alone.All.Hits || c.Hits.Bytes != alone.All.HitBytes || c.Fetched.Requests != alone.All.Requests-alone.All.Hits ||
					c.Evicted != alone.Evicted || c.All.Requests != alone.All.Requests || c.All.Bytes != alone.All.Bytes {
					t.Errorf("%s, seed %d: %+v, alone %+v", name, seed, c, alone)
				}
			}
			slow := sharing(1)
			slow.Policy = name
			for _, c := range clusters(t, d, slow) {
				if c.Evicted != alone.Evicted || c.Hits.Requests > alone.All.Hits || c.Hits.Requests+c.Joined.Requests < alone.All.Hits || c.Joined.Requests == 0 {
					t.Errorf("%s, seed %d: %+v, alone %+v", name, seed, c, alone)
				}
				if c.Followed.Requests+c.Peers.Requests > 0 {
					t.Errorf("a single replica has peers: %+v", c)
				}
			}
		}
	}
}

// Each request is counted once, no less is fetched than there is, sharing never fetches
// more, and nothing is asked of Redis without need.
func TestClusterAddsUp(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 12))
		d := stream(seed, 3000, 300, seed%2 == 0)
		c := anyCluster(rng)
		c.Policy = some[rng.IntN(len(some))]
		all := clusters(t, d, c)
		different := int64(0)
		seen := map[uint32]bool{}
		for _, a := range d.Accesses.All() {
			if !seen[a.ID] {
				different += d.Sizes[a.ID]
			}
			seen[a.ID] = true
		}
		for i, x := range all {
			var sum simulate.Flow
			for _, f := range []simulate.Flow{x.Hits, x.Joined, x.Followed, x.Peers, x.Stored, x.Fetched} {
				sum.Requests += f.Requests
				sum.Bytes += f.Bytes
			}
			o := x.Redis.Ops
			missed := x.Followed.Requests + x.Peers.Requests + x.Stored.Requests + x.Fetched.Requests
			switch {
			case sum != x.All || x.All.Requests != uint64(d.Accesses.Len()):
				t.Errorf("seed %d: %+v of %+v: %+v", seed, sum, x.All, x)
			case x.Fetched.Bytes < different || x.Unique != d.Bytes():
				t.Errorf("seed %d: %d were fetched of %d that are different", seed, x.Fetched.Bytes, different)
			case x.Shared && x.Fetched.Bytes > all[i-1].Fetched.Bytes:
				t.Errorf("seed %d, %+v: %d bytes were fetched, without sharing %d", seed, c, x.Fetched.Bytes, all[i-1].Fetched.Bytes)
			case x.Between.Bytes != x.Followed.Bytes+x.Peers.Bytes:
				t.Errorf("seed %d: %d bytes between replicas, of %+v and %+v", seed, x.Between.Bytes, x.Followed, x.Peers)
			case (!x.Shared || c.NoRedis) && x.PerRequest()+x.PerSecond() > 0:
				t.Errorf("seed %d: Redis is asked, which there is not: %+v", seed, o)
			case x.Shared && !c.NoRedis && (o.Locate < missed || o.Locate > 2*missed || o.Release > x.Fetched.Requests || o.Hold > missed+o.Look):
				t.Errorf("seed %d: %+v of %d misses", seed, o, missed)
			case x.Redis.Stale < o.Drop && !c.DropEvicted:
				t.Errorf("seed %d: %+v, of %d that were stale", seed, o, x.Redis.Stale)
			}
		}
	}
}

// A thundering herd: everybody asks for one blob while it is fetched.
func TestClusterHerd(t *testing.T) {
	const n, size = 100, 200_000_000
	d := &simulate.Decoded{Sizes: []int64{size}, Kinds: []trace.Kind{trace.Blob}, Timed: true, Nodes: n}
	for i := range n {
		d.Accesses.Add(simulate.Access{Time: int64(i) * 1e6, Node: uint32(i)})
	}
	c := simulate.Cluster{Replicas: []int{3}, Spread: simulate.ByTurn, L1: simulate.Size{Bytes: 1e9}, L2: simulate.Size{Bytes: 1e9},
		Upstream: simulate.Line{Latency: 100 * time.Millisecond, Rate: 10e6}, Peer: simulate.Line{Rate: 1e9}, Tier: simulate.Line{Rate: 100e6}}
	all := clusters(t, d, c)
	alone, shared := all[0], all[1]
	if alone.Fetched.Requests != 3 || alone.Times() != 3 {
		t.Errorf("three replicas that share nothing: %+v", alone)
	}
	// It takes 20.1 s: with a lease of 10 s, six renewals, one each 3.33 s.
	// The two that follow are refused the claim, and ask again half a lease after it may
	// have run out.
	ops := simulate.RedisOps{Locate: 3, Renew: 6, Release: 1, Hold: 5, Claim: 5, Look: 4, Publish: 1}
	if shared.Fetched.Requests != 1 || shared.Times() != 1 || shared.Followed.Requests != 2 || shared.Joined.Requests != n-3 || shared.Redis.Ops != ops || shared.Tier.Lists != 2 {
		t.Errorf("three replicas: %+v", shared)
	}
	if b := shared.Between; b.Bytes != 2*size || b.Sent != 2*size || b.Taken != size || b.Peak != 2*size/60 {
		t.Errorf("between them: %+v", b)
	}
}

// What is simulated while a trace is read is what is simulated afterwards.
func TestClusterStreamIsRun(t *testing.T) {
	requests := requestsOf(stream(6, 80_000, 1500, false))
	c := sharing(1, 7)
	c.L1, c.L2, c.PermissionTTL, c.Keep = simulate.Size{Bytes: 20_000}, simulate.Size{Bytes: 60_000}, time.Hour, 5*time.Hour
	cfg := simulate.Config{Cluster: c}
	d, err := simulate.Decode(t.Context(), trace.Of(requests...), simulate.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	want := run(t, d, cfg)
	got, err := simulate.Stream(t.Context(), trace.Of(requests...), simulate.Scope{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Cluster) != 4 || len(want.Cluster) != 4 {
		t.Fatalf("%d and %d cells", len(got.Cluster), len(want.Cluster))
	}
	for i := range got.Cluster {
		if got.Cluster[i] != want.Cluster[i] {
			t.Errorf("%+v of Stream, %+v of Run", got.Cluster[i], want.Cluster[i])
		}
	}
	c.L2 = simulate.Size{Share: 0.1}
	if _, err := simulate.Stream(t.Context(), trace.Of(requests...), simulate.Scope{}, simulate.Config{Cluster: c}); !errors.Is(err, simulate.ErrWhole) {
		t.Errorf("a share of a trace that was not read: %v", err)
	}
}

// An object that turns out to be larger grows in all replicas and in the tier, and no
// capacity is passed for it.
func TestClusterGrows(t *testing.T) {
	var requests []trace.Request
	for i := range 200_000 {
		at := time.Duration(i) * time.Second
		requests = append(requests, trace.Request{Delay: at, Method: "GET", URI: fmt.Sprintf("v2/r/blobs/%d", i*7919%400), Size: int64(1 + i/1000), Client: fmt.Sprint(i % 13)})
	}
	c := simulate.Cluster{Replicas: []int{1, 4}, L1: simulate.Size{Bytes: 8000}, L2: simulate.Size{Bytes: 20_000}}
	r, err := simulate.Stream(t.Context(), trace.Of(requests...), simulate.Scope{}, simulate.Config{Cluster: c})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Cluster {
		if x.Evicted == 0 || x.Shared && x.Tier.Removes == 0 || x.Unique != r.Bytes {
			t.Errorf("%+v", x)
		}
	}
}

func TestClusterErrors(t *testing.T) {
	d := stream(1, 100, 10, false)
	size := simulate.Size{Share: 0.1}
	for _, c := range []struct {
		c    simulate.Cluster
		says string
	}{
		{simulate.Cluster{Replicas: []int{0}, L1: size}, "0 replicas"},
		{simulate.Cluster{Replicas: []int{1 << 20}, L1: size}, "replicas"},
		{simulate.Cluster{Replicas: []int{1}}, "no size"},
		{simulate.Cluster{Replicas: []int{1}, L1: size, Spread: "even"}, "round-robin"},
		{simulate.Cluster{Replicas: []int{1}, L1: size, Policy: simulate.Belady}, "policy"},
		{simulate.Cluster{Replicas: []int{1}, L1: size, Rate: -1}, "rate"},
		{simulate.Cluster{Replicas: []int{1}, L1: size, Keep: -1}, "negative"},
		{simulate.Cluster{Replicas: []int{1}, L1: simulate.Size{Objects: 1}}, "unit"},
		{simulate.Cluster{Replicas: []int{1}, L1: size, L2: simulate.Size{Objects: 1}}, "unit"},
	} {
		for how, f := range map[string]func() error{
			"Run": func() error { _, err := simulate.Run(t.Context(), d, simulate.Config{Cluster: c.c}); return err },
			"Stream": func() error {
				if c.c.L1.Share > 0 {
					c.c.L1 = simulate.Size{Bytes: 5}
				}
				_, err := simulate.Stream(t.Context(), trace.Of(requestsOf(d)...), simulate.Scope{}, simulate.Config{Cluster: c.c})
				return err
			},
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %+v: %v, want something of %s", how, c.c, err, c.says)
			}
		}
	}
}

func TestClusterForms(t *testing.T) {
	c := sharing(1, 10)
	c.PermissionTTL = time.Hour
	r := run(t, stream(1, 5000, 300, false), simulate.Config{Cluster: c})
	golden(t, "cluster.txt", func(b *bytes.Buffer) error { return r.WriteText(b) })
	golden(t, "cluster.csv", func(b *bytes.Buffer) error { return r.WriteClusterCSV(b) })
	if err := r.WriteClusterCSV(&filled{room: 60}); !errors.Is(err, errFull) {
		t.Errorf("a file that is full: %v", err)
	}
}

// On what was recorded, each of a hundred replicas that share fetches what no other one
// has, and hardly anything twice.
func TestClusterRecorded(t *testing.T) {
	t.Parallel()
	d := real(t).Of(trace.Blob)
	for _, spread := range []simulate.Spread{simulate.ByTurn, simulate.ByHash} {
		all := clusters(t, d, simulate.Cluster{Replicas: []int{1, 100}, Spread: spread, L1: simulate.Size{Share: 0.05}, Rate: 50})
		one, alone, shared := all[0], all[2], all[3]
		t.Logf("%s: one %.3f, a hundred alone %.3f, sharing %.3f times what is unique; %.3f operations a request", spread,
			one.Times(), alone.Times(), shared.Times(), shared.PerRequest())
		if r := run(t, d, simulate.Config{Policies: []string{policy.NameLRU}, Sizes: []simulate.Size{{Share: 0.05}}}).Cells[0]; r.All.Hits != one.Hits.Requests {
			t.Errorf("one replica has %d hits, the cache %d", one.Hits.Requests, r.All.Hits)
		}
		if shared.Times() > 1.01 || shared.Times() < 1 || alone.Fetched.Bytes < shared.Fetched.Bytes {
			t.Errorf("%s: %+v, alone %+v", spread, shared, alone)
		}
	}
}

// A cluster that is simulated while the trace is read takes no more memory at its end
// than when it has seen all objects.
func TestClusterMemory(t *testing.T) {
	const n = 6 << 16
	c := simulate.Cluster{
		Replicas: []int{10}, Spread: simulate.ByTurn, L1: simulate.Size{Bytes: 1 << 20}, L2: simulate.Size{Bytes: 4 << 20},
		Upstream: simulate.Line{Latency: time.Second}, Keep: 10 * time.Second, PermissionTTL: 10 * time.Second,
	}
	peak := &watched{r: &counted{n: n}, every: n / 4}
	r, err := simulate.Stream(t.Context(), peak, simulate.Scope{}, simulate.Config{Cluster: c})
	if err != nil {
		t.Fatal(err)
	}
	if x := r.Cluster[1]; x.Peers.Requests == 0 || x.Tier.Removes == 0 || x.Permits.Checked == 0 {
		t.Errorf("little happened: %+v", x)
	}
	if first, last := peak.seen[0], peak.seen[len(peak.seen)-1]; last > first+2<<20 {
		t.Errorf("it took %d bytes at its beginning, and %d at its end", first, last)
	}
}
