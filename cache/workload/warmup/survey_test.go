package warmup_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cache/workload/warmup"
)

// Only what was sent of an object tells how large it is.
func TestSizes(t *testing.T) {
	const uri = "v2/a/blobs/x"
	of := func(status int, size int64) trace.Request {
		return trace.Request{Method: "GET", URI: uri, Status: status, Size: size}
	}
	part := func(status int, off, n, size int64) trace.Request {
		return trace.Request{Method: "GET", URI: uri, Status: status, Off: off, Len: n, Size: size}
	}
	head := trace.Request{Method: "HEAD", URI: uri, Status: 200}
	for _, c := range []struct {
		name     string
		requests []trace.Request
		want     int // bytes; -1: it is not pushed
	}{
		{"as it is", []trace.Request{of(200, 100)}, 100},
		{"nothing of it", []trace.Request{of(200, 0)}, 0},
		{"the largest", []trace.Request{of(200, 100), of(200, 300), of(200, 200)}, 300},
		{"no status", []trace.Request{of(0, 100)}, 100},
		{"no size", []trace.Request{of(0, -1)}, 777},
		{"redirected", []trace.Request{of(307, 1200)}, 777},
		{"redirected once", []trace.Request{of(307, 1200), of(200, 100)}, 100},
		{"not modified", []trace.Request{of(304, 0), of(200, 100)}, 100},
		{"asked for", []trace.Request{head}, 777},
		{"asked for and read", []trace.Request{head, of(200, 100)}, 100},
		{"a part", []trace.Request{part(206, 1000, 24, 24)}, 1024},
		{"a part, no status", []trace.Request{part(0, 1000, 24, -1)}, 1024},
		{"over the end", []trace.Request{part(206, 1000, 1<<20, 24)}, 1024},
		{"all of it though a part was asked for", []trace.Request{part(200, 0, 1<<20, 5000)}, 5000},
		{"gone", []trace.Request{of(404, 100)}, -1},
		{"forbidden", []trace.Request{of(403, 100), part(416, 0, 10, 100)}, -1},
		{"broken", []trace.Request{of(500, 100)}, -1},
		{"pushed", []trace.Request{{Method: "PUT", URI: uri, Status: 201, Size: 100}}, -1},
	} {
		s := newRegistry(t)
		// Something is pushed in any case.
		requests := append(slices.Clone(c.requests), get("1", "v2/b/blobs/other", 1))
		m, _, err := warmup.Run(t.Context(), s.client(t), trace.Of(requests...), nil, warmup.Config{Maker: content.New(1, false), Unsized: 777})
		if err != nil {
			t.Fatal(err)
		}
		got := -1
		if d, ok := m[uri]; ok {
			got = len(s.content["/v2/a/blobs/"+d])
		}
		if got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}

// A blob that several repositories have is one, of the size that is known best.
func TestOneName(t *testing.T) {
	requests := []trace.Request{
		get("1", "v2/a/manifests/latest", 500),
		get("1", "v2/a/blobs/x", 4000),
		get("2", "v2/b/c/manifests/latest", 500),
		{Method: "HEAD", Client: "2", URI: "v2/b/c/blobs/x", Status: 200},
		get("3", "v2/d/blobs/x", 5000),
		get("3", "v2/d/blobs/y", 5000),
	}
	s := newRegistry(t)
	m, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(requests...), nil, warmup.Config{Maker: content.New(1, false), Verify: 1})
	if err != nil {
		t.Fatal(err)
	}
	x := m["v2/a/blobs/x"]
	if m["v2/b/c/blobs/x"] != x || m["v2/d/blobs/x"] != x || m["v2/d/blobs/y"] == x || m["v2/a/manifests/latest"] == m["v2/b/c/manifests/latest"] {
		t.Errorf("%v", m)
	}
	for _, repo := range []string{"a", "b/c", "d"} {
		if n := len(s.content["/v2/"+repo+"/blobs/"+x]); n != 5000 {
			t.Errorf("%s: x has %d bytes", repo, n)
		}
	}
	if stats.Shared != 2 || stats.Mounted != 2 || s.mounts != 2 || stats.Pushed != 6 {
		t.Errorf("%+v, %d mounts", stats, s.mounts)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(s.content["/v2/b/c/manifests/latest"], &manifest); err != nil || len(manifest.Layers) != 1 ||
		manifest.Layers[0].Digest.String() != x || manifest.Layers[0].Size != 5000 {
		t.Errorf("%v, %s", err, s.content["/v2/b/c/manifests/latest"])
	}
}

// What is read of a blob in parts is in it, whosoever's content it has.
func TestDedupeOfParts(t *testing.T) {
	var requests []trace.Request
	for i := range 300 {
		off := int64(1000 + i*7919%1000)
		requests = append(requests, trace.Request{Method: "GET", URI: fmt.Sprint("v2/r/blobs/", i), Status: 206, Off: off, Len: 10, Size: 10})
	}
	s := newRegistry(t)
	m, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(requests...), nil, warmup.Config{Maker: content.New(1, false), Dedupe: 0.5, Threads: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		if n := len(s.content["/v2/r/blobs/"+m[r.URI]]); int64(n) < r.Off+r.Len {
			t.Errorf("%s has %d bytes, up to %d are read", r.URI, n, r.Off+r.Len)
		}
	}
	if stats.Shared == 0 {
		t.Errorf("%+v", stats)
	}
}

// A manifest has no more layers than images may have, each once.
func TestLayers(t *testing.T) {
	requests := []trace.Request{get("1", "v2/a/manifests/m", 100)}
	for i := range 300 {
		requests = append(requests, get("1", fmt.Sprint("v2/a/blobs/", i/2), 10))
	}
	s := newRegistry(t)
	if _, _, err := warmup.Run(t.Context(), s.client(t), trace.Of(requests...), nil, warmup.Config{Maker: content.New(1, false)}); err != nil {
		t.Fatal(err)
	}
	text := string(s.content["/v2/a/manifests/m"])
	if n := strings.Count(text, content.LayerType+`"`); n != 127 {
		t.Errorf("%d layers", n)
	}
}

// Of the recorded traffic of IBM's registries, what an independent count finds:
// 108,325 URIs of blobs, of 259,274 requests, and 31.4 % of those requests are the
// first for the name of their blob.
func TestRecorded(t *testing.T) {
	const file = "../../../../shared/data/ibm-registry-gets-725k.csv.zst"
	if _, err := os.Stat(file); err != nil {
		t.Skip(err)
	}
	f, err := trace.Open(trace.Config{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := warmup.Survey(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", p)
	first := float64(p.Contents) / 259_274
	if p.Blobs != 108_325 || p.Manifests != 12_988 || first < 0.3135 || first > 0.3145 {
		t.Errorf("%+v: %.4f of the requests are the first for a name", p, first)
	}
	// A pull reads 7.1 blobs; those of several pulls of a tag come together.
	if n := float64(p.Layers) / float64(p.Listing); n < 6 || n > 12 {
		t.Errorf("manifests list %.1f layers", n)
	}
}
