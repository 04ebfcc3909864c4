package schedule_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/schedule"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// all returns the items of requests.
func all(t *testing.T, cfg schedule.Config, requests ...trace.Request) ([]load.Item, schedule.Stats) {
	t.Helper()
	s, err := schedule.New(trace.Of(requests...), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var out []load.Item
	for {
		it, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if it.Seq != uint64(len(out)) || len(out) > 0 && it.Due < out[len(out)-1].Due {
			t.Fatalf("%+v comes after %+v", it, out[len(out)-1])
		}
		out = append(out, it)
	}
	stats := s.Stats()
	left := uint64(0)
	for _, n := range stats.LeftOut {
		left += n
	}
	if stats.Read != uint64(len(requests)) || stats.Items != uint64(len(out)) || stats.Items+left != stats.Read {
		t.Fatalf("%+v of %d requests, %d items", stats, len(requests), len(out))
	}
	return out, stats
}

var (
	d1 = digest.FromString("1").String()
	d2 = digest.FromString("2").String()
	d3 = digest.FromString("3").String()
)

// TestItems has one request each, and what is to become of it.
func TestItems(t *testing.T) {
	pushed := map[string]string{
		"v2/u/r/blobs/aa": d1, "v2/u/r/manifests/bb": d2, "v2/u/r/blobs/bad": "bad", "v2/u/r/manifests/" + d3: d3,
	}
	for _, c := range []struct {
		name    string
		cfg     schedule.Config
		request trace.Request
		want    string // op path digest, or why not
	}{
		{"blob", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/aa"}, "get /v2/u/r/blobs/" + d1 + " " + d1},
		{"head", schedule.Config{Map: pushed}, trace.Request{Method: "HEAD", URI: "v2/u/r/blobs/aa"}, "head /v2/u/r/blobs/" + d1 + " " + d1},
		{"bad", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/bad"}, "bad"},
		{"unknown", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/cc"}, "unknown"},
		{"tag", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/manifests/bb"}, "get /v2/u/r/manifests/bb " + d2},
		{"digest", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/manifests/" + d3}, "get /v2/u/r/manifests/" + d3 + " " + d3},
		{"manifests as blobs", schedule.Config{Map: pushed, Blobs: true}, trace.Request{Method: "GET", URI: "v2/u/r/manifests/bb"}, "get /v2/u/r/blobs/" + d2 + " " + d2},
		{"one repository", schedule.Config{Map: pushed, Repository: "test_repo"}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/aa"}, "get /v2/test_repo/blobs/" + d1 + " " + d1},
		{"not modified", schedule.Config{Map: pushed}, trace.Request{Method: "GET", Status: 304, URI: "v2/u/r/manifests/bb"}, "head /v2/u/r/manifests/bb " + d2},
		{"was not there", schedule.Config{Map: pushed}, trace.Request{Method: "HEAD", Status: 404, URI: "v2/u/r/manifests/tag"}, "head /v2/u/r/manifests/tag absent " + digest.FromString("absent v2/u/r/manifests/tag").String()},
		{"denied", schedule.Config{Map: pushed}, trace.Request{Method: "GET", Status: 401, URI: "v2/u/r/blobs/aa"}, "refused"},
		{"ping", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2"}, "get /v2/"},
		{"ping that asked how to log in", schedule.Config{Map: pushed}, trace.Request{Method: "GET", Status: 401, URI: "v2"}, "get /v2/"},
		{"part of what was pushed", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/aa", Off: 3, Len: 4}, "get /v2/u/r/blobs/" + d1 + " " + d1},
		{"part of what was there", schedule.Config{}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/" + d1, Off: 3, Len: 4}, "get /v2/u/r/blobs/" + d1},
		{"tags", schedule.Config{Map: pushed}, trace.Request{Method: "GET", URI: "v2/u/r/tags/list"}, "get /v2/u/r/tags/list"},
		{"referrers", schedule.Config{}, trace.Request{Method: "GET", URI: "v2/u/r/referrers/" + d1}, "get /v2/u/r/referrers/" + d1},
		{"other", schedule.Config{}, trace.Request{Method: "GET", URI: "v1/users"}, "unsupported"},
		{"delete", schedule.Config{}, trace.Request{Method: "DELETE", URI: "v2/u/r/manifests/bb"}, "unsupported"},
		{"as recorded", schedule.Config{}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/" + d1}, "get /v2/u/r/blobs/" + d1 + " " + d1},
		{"tag as recorded", schedule.Config{}, trace.Request{Method: "GET", URI: "v2/u/r/manifests/v1"}, "get /v2/u/r/manifests/v1"},
		{"push of a tag", schedule.Config{Map: pushed}, trace.Request{Method: "PUT", URI: "v2/u/r/manifests/new", Size: 5}, "push /v2/u/r/manifests/new"},
		{"push of a tag that is read", schedule.Config{Map: pushed}, trace.Request{Method: "PUT", URI: "v2/u/r/manifests/bb", Size: 5}, "push /v2/u/r/manifests/bb-pushed"},
		{"push by digest", schedule.Config{}, trace.Request{Method: "PUT", URI: "v2/u/r/manifests/" + d1, Size: 5}, "push /v2/u/r/manifests/" + d1[7:] + "-pushed"},
		{"push of a blob", schedule.Config{}, trace.Request{Method: "PUT", URI: "v2/u/r/blobs/cc", Size: 5}, "push /v2/u/r/blobs/uploads/"},
		{"begin, whole", schedule.Config{}, trace.Request{Method: "POST", URI: "v2/u/r/blobs/uploads/"}, "part"},
		{"begin, parts", schedule.Config{Uploads: schedule.Parts}, trace.Request{Method: "POST", URI: "v2/u/r/blobs/uploads/"}, "start /v2/u/r/blobs/uploads/"},
		{"how far", schedule.Config{}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/uploads/x"}, "unsupported"},
		{"compat: push of what is read", schedule.Config{Map: pushed, Compat: true}, trace.Request{Method: "PUT", URI: "v2/u/r/blobs/aa", Size: 5}, "get /v2/u/r/blobs/" + d1 + " " + d1},
		{"compat: read of what is not there", schedule.Config{Map: pushed, Compat: true}, trace.Request{Method: "GET", URI: "v2/u/r/manifests/cc", Size: 5}, "push /v2/u/r/blobs/uploads/"},
		{"compat: bad", schedule.Config{Map: pushed, Compat: true}, trace.Request{Method: "GET", URI: "v2/u/r/blobs/bad"}, "bad"},
		{"repository named blobs", schedule.Config{Map: map[string]string{"v2/my/blobs/manifests/x": d1}}, trace.Request{Method: "GET", URI: "v2/my/blobs/manifests/x"}, "get /v2/my/blobs/manifests/x " + d1},
	} {
		t.Run(c.name, func(t *testing.T) {
			items, stats := all(t, c.cfg, c.request)
			got := ""
			for why := range stats.LeftOut {
				got = string(why)
			}
			for _, it := range items {
				got = string(it.Op) + " " + it.Path
				if it.Absent {
					got += " absent"
				}
				if it.Digest != "" {
					got += " " + string(it.Digest)
				}
				if it.URI != c.request.URI || it.Size != c.request.Size {
					t.Errorf("%+v of %+v", it, c.request)
				}
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Uploads that were never ended do not take the place of those that are.
func TestManyUploads(t *testing.T) {
	const many = schedule.MaxParts + 100
	var requests []trace.Request
	for i := range many {
		requests = append(requests, trace.Request{Method: "PATCH", URI: fmt.Sprint("v2/a/blobs/uploads/", i), Size: 1, Status: 202})
	}
	requests = append(requests,
		trace.Request{Method: "PATCH", URI: "v2/a/blobs/uploads/x", Size: 100, Status: 202},
		trace.Request{Method: "PUT", URI: "v2/a/blobs/uploads/x", Size: 5, Status: 201})
	items, _ := all(t, schedule.Config{Untimed: true}, requests...)
	if len(items) != 1 || items[0].Size != 105 {
		t.Errorf("%+v", items)
	}
}

// TestWhole adds the bytes of the parts of an upload to its end.
func TestWhole(t *testing.T) {
	items, stats := all(t, schedule.Config{Untimed: true},
		trace.Request{Method: "POST", URI: "v2/a/blobs/uploads/", Status: 202},
		trace.Request{Method: "PATCH", URI: "v2/a/blobs/uploads/x", Size: 100, Status: 202},
		trace.Request{Method: "PATCH", URI: "v2/a/blobs/uploads/y", Size: 7, Status: 202},
		trace.Request{Method: "PATCH", URI: "v2/a/blobs/uploads/x", Size: 50, Status: 202},
		trace.Request{Method: "PUT", URI: "v2/a/blobs/uploads/x", Size: 0, Status: 201},
		trace.Request{Method: "PUT", URI: "v2/a/blobs/uploads/y", Size: -1, Status: 201},
		trace.Request{Method: "PUT", URI: "v2/a/blobs/z", Size: 9, Status: 201},
		trace.Request{Method: "PUT", URI: "v2/a/blobs/w", Size: 9, Status: 400},
	)
	var sizes []int64
	for _, it := range items {
		if it.Op != load.Push || it.Kind != trace.Upload {
			t.Errorf("%+v", it)
		}
		sizes = append(sizes, it.Size)
	}
	if fmt.Sprint(sizes) != "[150 7 9]" || stats.LeftOut[schedule.Part] != 4 || stats.LeftOut[schedule.Refused] != 1 {
		t.Errorf("sizes %v, %+v", sizes, stats)
	}
}

func pings(n int, gap time.Duration) []trace.Request {
	out := make([]trace.Request, n)
	for i := range out {
		out[i] = trace.Request{
			Method: "GET", URI: "v2", Delay: time.Duration(i) * gap,
			Host: fmt.Sprint("h", i%7), Client: fmt.Sprint("c", i%13),
		}
	}
	return out
}

// TestTimes compares what is due with what it must be.
func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  schedule.Config
		want func(i int) float64 // seconds, of requests a second apart
	}{
		{"as recorded", schedule.Config{}, func(i int) float64 { return float64(i) }},
		{"ten times as fast", schedule.Config{Speed: 10}, func(i int) float64 { return float64(i) / 10 }},
		{"half as fast", schedule.Config{Speed: 0.5}, func(i int) float64 { return float64(i) * 2 }},
		{"a rate", schedule.Config{Rate: 4, Speed: 3}, func(i int) float64 { return float64(i) / 4 }},
		{"a ramp", schedule.Config{Ramp: 20 * time.Second}, func(i int) float64 {
			if i < 10 { // half of what comes at the full rate
				return math.Sqrt(40 * float64(i))
			}
			return float64(i) + 10
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			items, _ := all(t, c.cfg, pings(100, time.Second)...)
			for i, it := range items {
				if want := c.want(i); math.Abs(it.Due.Seconds()-want) > 1e-6 {
					t.Fatalf("%d is due at %v, want %v s", i, it.Due, want)
				}
			}
		})
	}
}

// TestPoisson has arrivals of the rate whose distances are distributed as those of
// independent arrivals are, and which are the same for a seed.
func TestPoisson(t *testing.T) {
	const n, rate = 20_000, 50.0
	items, _ := all(t, schedule.Config{Rate: rate, Poisson: true, Seed: 1}, pings(n, 0)...)
	again, _ := all(t, schedule.Config{Rate: rate, Poisson: true, Seed: 1}, pings(n, 0)...)
	var sum, squares float64
	for i := range items {
		if items[i].Due != again[i].Due {
			t.Fatal("another run has other times")
		}
		if i > 0 {
			gap := (items[i].Due - items[i-1].Due).Seconds()
			sum += gap
			squares += gap * gap
		}
	}
	mean := sum / (n - 1)
	deviation := math.Sqrt(squares/(n-1) - mean*mean)
	if math.Abs(mean*rate-1) > 0.03 || math.Abs(deviation/mean-1) > 0.03 {
		t.Errorf("mean distance %v s, deviation %v s, want %v of both", mean, deviation, 1/rate)
	}
}

// TestLate has a request that comes after later ones: it is due at once.
func TestLate(t *testing.T) {
	rs := pings(3, time.Second)
	rs[2].Delay, rs[2].Time = 0, time.Unix(1, 0)
	items, _ := all(t, schedule.Config{}, rs...)
	if items[2].Due != time.Second {
		t.Errorf("due at %v", items[2].Due)
	}
}

// TestUntimed refuses to send a whole trace at once.
func TestUntimed(t *testing.T) {
	s, err := schedule.New(trace.Of(pings(3, 0)...), schedule.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, schedule.ErrUntimed) {
		t.Errorf("error is %v", err)
	}
	if items, _ := all(t, schedule.Config{Untimed: true}, pings(3, 0)...); len(items) != 3 {
		t.Errorf("%d items", len(items))
	}
}

// TestPick spreads requests over registries.
func TestPick(t *testing.T) {
	const n = 3000
	for _, pick := range []schedule.Pick{"", schedule.Random, schedule.RoundRobin, schedule.ByHost, schedule.ByClient} {
		t.Run("pick "+string(pick), func(t *testing.T) {
			cfg := schedule.Config{Pick: pick, Registries: 3, Seed: 7}
			items, _ := all(t, cfg, pings(n, time.Millisecond)...)
			again, _ := all(t, cfg, pings(n, time.Millisecond)...)
			counts := map[int]int{}
			of := map[string]int{}
			for i, it := range items {
				counts[it.Registry]++
				if again[i].Registry != it.Registry {
					t.Fatal("another run has others")
				}
				key := map[schedule.Pick]string{schedule.ByHost: fmt.Sprint("h", i%7), schedule.ByClient: it.Client}[pick]
				if before, ok := of[key]; ok && key != "" && before != it.Registry {
					t.Fatalf("%s goes to %d and %d", key, before, it.Registry)
				}
				of[key] = it.Registry
			}
			if len(counts) != 3 {
				t.Errorf("they go to %v", counts)
			}
			if even := pick != schedule.ByHost && pick != schedule.ByClient; even && (counts[0] < n*3/10 || counts[1] < n*3/10 || counts[2] < n*3/10) {
				t.Errorf("they go to %v", counts)
			}
		})
	}
	t.Run("parts of one upload", func(t *testing.T) {
		var rs []trace.Request
		for i := range 50 {
			client := fmt.Sprint("c", i)
			for _, method := range []string{"POST", "PATCH", "PUT"} {
				rs = append(rs, trace.Request{Method: method, URI: strings.TrimSuffix(fmt.Sprint("v2/a/blobs/uploads/", i), "x"), Client: client, Delay: time.Duration(len(rs))})
			}
		}
		items, _ := all(t, schedule.Config{Registries: 4, Uploads: schedule.Parts}, rs...)
		used := map[int]bool{}
		for i, it := range items {
			used[it.Registry] = true
			if it.Registry != items[i-i%3].Registry {
				t.Fatalf("parts go to %d and %d", it.Registry, items[i-i%3].Registry)
			}
		}
		if len(used) != 4 {
			t.Errorf("%d registries are used", len(used))
		}
	})
}

func TestQuery(t *testing.T) {
	items, _ := all(t, schedule.Config{NS: "registry:5000/x"}, pings(1, 0)...)
	if items[0].Query != "ns=registry%3A5000%2Fx" {
		t.Errorf("query %q", items[0].Query)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []schedule.Config{
		{Speed: -1}, {Speed: math.NaN()}, {Rate: -1}, {Ramp: -1}, {Poisson: true}, {Pick: "best"}, {Uploads: "half"}, {Compat: true},
	} {
		if _, err := schedule.New(trace.Of(), c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// FuzzItem looks for requests that make paths which are none.
func FuzzItem(f *testing.F) {
	f.Add("GET", "v2/a/blobs/x", 200, int64(5))
	f.Add("PATCH", "v2/a/blobs/uploads/x", 202, int64(-1))
	f.Add("PUT", "v2/a/manifests/"+d1, 201, int64(1))
	f.Fuzz(func(t *testing.T, method, uri string, status int, size int64) {
		for _, cfg := range []schedule.Config{
			{}, {Uploads: schedule.Parts}, {Map: map[string]string{uri: d1}, Blobs: true}, {Map: map[string]string{}, Compat: true, Repository: "r"},
		} {
			s, err := schedule.New(trace.Of(trace.Request{Method: method, URI: uri, Status: status, Size: size}), cfg)
			if err != nil {
				t.Fatal(err)
			}
			it, err := s.Next(t.Context())
			if err != nil {
				continue
			}
			if !strings.HasPrefix(it.Path, "/v2/") || it.Op == "" || it.Kind == trace.Other {
				t.Errorf("%s %q becomes %+v", method, uri, it)
			}
		}
	})
}
