package replayer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/schedule"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cache/workload/warmup"
)

// stored is a real registry, with a client, whose content is looked at.
type stored struct {
	*server
	t      *testing.T
	client *load.Client
}

func newStored(t *testing.T) *stored {
	t.Helper()
	s := startRegistry(t, "")
	return &stored{server: s, t: t, client: clientOf(t, load.Registry{Base: s.url()})}
}

func clientOf(t *testing.T, r load.Registry) *load.Client {
	t.Helper()
	c, err := load.NewClient(load.Config{Registries: []load.Registry{r}, Threads: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// blobs returns how many blobs are in the registry's storage.
func (s *stored) blobs() int {
	s.t.Helper()
	all, err := filepath.Glob(filepath.Join(s.storage, "docker/registry/v2/blobs/sha256/??/*/data"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// get returns what is at a path of the registry.
func (s *stored) get(path, accept string) []byte {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		s.t.Errorf("GET %s: %s, %v", path, a.Status, err)
	}
	return body
}

// imagePulls is a trace of images that are pulled by clients: layers are shared within
// repositories and between them, some are read in parts, and some that were asked for
// were not there.
func imagePulls(n int) []trace.Request {
	rng := rand.New(rand.NewPCG(1, 2))
	var out []trace.Request
	add := func(r trace.Request) {
		r.Delay = time.Duration(len(out)) * time.Millisecond
		out = append(out, r)
	}
	for i := range n {
		repository := fmt.Sprintf("v2/team%d/app%d", i%3, i%7)
		client := fmt.Sprint("c", rng.IntN(5))
		add(trace.Request{Method: "GET", URI: "v2", Client: client, Status: 200, Size: 2})
		add(trace.Request{Method: "HEAD", URI: repository + fmt.Sprint("/manifests/v", i%20), Client: client, Status: 200})
		add(trace.Request{Method: "GET", URI: repository + fmt.Sprint("/manifests/v", i%20), Client: client, Status: 200, Size: int64(2000 + i%20)})
		for range 1 + rng.IntN(5) {
			layer := rng.IntN(60) // their size belongs to them
			uri := repository + fmt.Sprint("/blobs/l", layer)
			size := int64(layer*layer*layer) * 10
			switch rng.IntN(5) {
			case 0:
				add(trace.Request{Method: "HEAD", URI: uri, Client: client, Status: 200})
			case 1:
				if size > 200 {
					add(trace.Request{Method: "GET", URI: uri, Client: client, Status: 206, Off: size / 2, Len: 100, Size: 100})
				}
			}
			add(trace.Request{Method: "GET", URI: uri, Client: client, Status: 200, Size: size})
		}
		add(trace.Request{Method: "GET", URI: repository + fmt.Sprint("/manifests/gone", i), Client: client, Status: 404, Size: 90})
	}
	return out
}

// TestWarmupOfRealRegistry warms a registry up and looks at what is in it: the blobs,
// each once and as long as recorded, images that list them, and nothing else. What the
// trace asks for is then read without an error, and a second warmup pushes nothing.
func TestWarmupOfRealRegistry(t *testing.T) {
	s := newStored(t)
	requests := imagePulls(70)
	cfg := warmup.Config{Maker: content.New(5, false), Threads: 8, Verify: 1}
	known, stats, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), nil, cfg)
	if err != nil || stats.Bad != 0 {
		t.Fatalf("%v, %+v", err, stats)
	}
	t.Logf("%+v", stats)
	if stats.Mounted == 0 || stats.Verified != stats.Pushed {
		t.Errorf("%+v", stats)
	}
	sizes := map[string]int64{}
	for _, r := range requests {
		if r.Status == 200 && r.Method == "GET" {
			sizes[r.URI] = r.Size
		}
	}
	distinct := map[string]bool{}
	listed := 0
	for uri, d := range known {
		distinct[d] = true
		to := trace.Parse(uri)
		if to.Kind == trace.Manifest {
			text := s.get("/"+uri, ocispec.MediaTypeImageManifest) // by its tag
			listed += len(image(t, s, to.Repository, text, distinct).Layers)
			if digest.FromBytes(text).String() != d || int64(len(text)) != sizes[uri] {
				t.Errorf("%s: %d bytes with digest %s, want %d with %s", uri, len(text), digest.FromBytes(text), sizes[uri], d)
			}
			continue
		}
		if b := s.get("/v2/"+to.Repository+"/blobs/"+d, "*/*"); digest.FromBytes(b).String() != d || int64(len(b)) != sizes[uri] {
			t.Errorf("%s: %d bytes with digest %s, want %d with %s", uri, len(b), digest.FromBytes(b), sizes[uri], d)
		}
	}
	if n := s.blobs(); n != len(distinct) {
		t.Errorf("%d blobs are stored, %d are asked for", n, len(distinct))
	}
	if listed < 60 {
		t.Errorf("manifests list %d layers", listed)
	}
	replay(t, s, requests, schedule.Config{Map: known}, load.Config{Seed: 5})

	again, stats, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), known, cfg)
	if err != nil || stats.Pushed != 0 || stats.Present != stats.Objects || !maps.Equal(again, known) {
		t.Errorf("the second time: %v, %+v", err, stats)
	}
}

// image parses a manifest and checks that what it names is in the repository.
func image(t *testing.T, s *stored, repository string, text []byte, distinct map[string]bool) ocispec.Manifest {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if b := s.get("/v2/"+repository+"/blobs/"+d.Digest.String(), "*/*"); digest.FromBytes(b) != d.Digest || int64(len(b)) != d.Size {
			t.Errorf("%s in %s: %d bytes, want %d", d.Digest, repository, len(b), d.Size)
		}
	}
	distinct[m.Config.Digest.String()] = true
	return m
}

// replay sends the requests and wants no failure and no mismatch.
func replay(t *testing.T, s *stored, requests []trace.Request, how schedule.Config, cfg load.Config) {
	t.Helper()
	cfg.Registries = []load.Registry{{Base: s.url()}}
	cfg.Closed, cfg.Threads, how.Untimed = true, 8, true
	n := 0
	for uri, rs := range results(t, cfg, how, requests...) {
		for _, r := range rs {
			if n++; r.Cause != load.CauseNone {
				t.Errorf("%s: %+v", uri, r)
			}
		}
	}
	if n != len(requests) {
		t.Errorf("%d results of %d requests", n, len(requests))
	}
}

// TestWarmupDedupe has a share of the blobs with the content of others, in one
// repository and in several.
func TestWarmupDedupe(t *testing.T) {
	s := newStored(t)
	requests := imagePulls(60)
	known, stats, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), nil, warmup.Config{
		Maker: content.New(5, false), Threads: 8, Verify: 1, Dedupe: 0.3,
	})
	if err != nil || stats.Bad != 0 || stats.Shared == 0 {
		t.Fatalf("%v, %+v", err, stats)
	}
	names, distinct := map[string]bool{}, map[string]bool{}
	for uri, d := range known {
		if to := trace.Parse(uri); to.Kind == trace.Blob {
			names[to.Reference], distinct[d] = true, true
		}
	}
	t.Logf("%d blobs of %d contents, %+v", len(names), len(distinct), stats)
	if n := len(names) - len(distinct); n < len(names)/10 || n > len(names)/2 {
		t.Errorf("%d of %d blobs have the content of another", n, len(names))
	}
	replay(t, s, requests, schedule.Config{Map: known}, load.Config{Seed: 5})
}

// TestWarmupAsOriginal pushes what the original pushes: zeros, manifests as blobs,
// everything into one repository.
func TestWarmupAsOriginal(t *testing.T) {
	s := newStored(t)
	requests := slices.DeleteFunc(imagePulls(40), func(r trace.Request) bool { return r.Status == 404 || r.Method != "GET" || r.URI == "v2" })
	known, stats, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), nil, warmup.Config{
		Maker: content.New(0, true), Threads: 4, Blobs: true, Repository: "test_repo",
	})
	if err != nil || stats.Bad != 0 {
		t.Fatalf("%v, %+v", err, stats)
	}
	sizes := map[int]bool{}
	for uri, d := range known {
		b := s.get("/v2/test_repo/blobs/"+d, "*/*")
		sizes[len(b)] = true
		if len(bytes.Trim(b, "\x00")) != 0 {
			t.Errorf("%s is not zeros", uri)
		}
	}
	if n := s.blobs(); n != len(sizes) {
		t.Errorf("%d blobs of %d sizes are stored", n, len(sizes))
	}
	replay(t, s, requests, schedule.Config{Map: known, Repository: "test_repo", Compat: true, Blobs: true}, load.Config{Compressible: true})
}

// TestWarmupGoesOn kills the registry in the middle of a warmup, starts it again, ends
// the next warmup early as if it were killed, and wants the third, which has only what
// the second had saved by then, to complete it.
func TestWarmupGoesOn(t *testing.T) {
	s := newStored(t)
	var requests []trace.Request
	for i := range 500 {
		requests = append(requests, trace.Request{Method: "GET", URI: fmt.Sprintf("v2/r%d/blobs/%d", i%9, i), Status: 200, Size: int64(10_000 + i)})
		if i%30 == 0 {
			requests = append(requests, trace.Request{Method: "GET", URI: fmt.Sprintf("v2/r%d/manifests/%d", i%9, i), Status: 200, Size: 900})
		}
	}
	file := filepath.Join(t.TempDir(), "interim.json")
	cfg := warmup.Config{Maker: content.New(6, false), Threads: 4, Attempts: 2, Save: func(m outcome.Map) error { return m.Write(file) }}
	var killed atomic.Bool
	cfg.Progress = func(x warmup.Stats) {
		if x.Pushed > 120 && killed.CompareAndSwap(false, true) {
			s.kill()
		}
	}
	_, stats, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), nil, cfg)
	if err == nil || !strings.Contains(err.Error(), "lost") {
		t.Fatalf("the registry was killed: %v, %+v", err, stats)
	}
	t.Logf("%v, %+v", err, stats)
	if stats.Pushed < 120 || stats.Done > 400 {
		t.Errorf("%+v", stats)
	}

	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	first := read(t, file)
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Progress = func(x warmup.Stats) {
		if x.Done > 300 {
			cancel()
		}
	}
	_, second, err := warmup.Run(ctx, s.client, trace.Of(requests...), first, cfg)
	if !errors.Is(err, context.Canceled) || second.Present == 0 || second.Bad != 0 {
		t.Errorf("%v, %+v", err, second)
	}

	cfg.Progress, cfg.Verify = nil, 1
	_, third, err := warmup.Run(t.Context(), s.client, trace.Of(requests...), read(t, file), cfg)
	if err != nil || third.Bad != 0 || third.Present < 300-9 || third.Pushed != third.Objects-third.Present {
		t.Errorf("%v, %+v", err, third)
	}
	replay(t, s, requests, schedule.Config{Map: read(t, file)}, load.Config{Seed: 6})
}

func read(t *testing.T, file string) outcome.Map {
	t.Helper()
	m, err := outcome.ReadMap(file)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWarmupWithTokens warms up a registry that wants a token for each repository, and
// for both where a blob is mounted, as a user who may push and as nobody, who may not.
func TestWarmupWithTokens(t *testing.T) {
	issuer := newIssuer(t)
	r := load.Registry{Base: realRegistry(t, issuer.registry()), Auth: load.Auth{Username: "ann", Password: "secret"}}
	requests := imagePulls(40)
	cfg := warmup.Config{Maker: content.New(7, false), Threads: 4, Verify: 0.5}
	_, stats, err := warmup.Run(t.Context(), clientOf(t, r), trace.Of(requests...), nil, cfg)
	if err != nil || stats.Bad != 0 || stats.Mounted == 0 {
		t.Errorf("%v, %+v", err, stats)
	}
	r.Auth = load.Auth{}
	_, stats, err = warmup.Run(t.Context(), clientOf(t, r), trace.Of(requests...), nil, cfg)
	if err == nil || stats.Bad != stats.Objects {
		t.Errorf("nobody may push: %v, %+v", err, stats)
	}
	r.Auth = load.Auth{Username: "ann", Password: "guess"}
	if m, _, err := warmup.Run(t.Context(), clientOf(t, r), trace.Of(requests...), nil, cfg); err == nil || len(m) > 0 {
		t.Errorf("the password is wrong: %v, %d in the map", err, len(m))
	}
}
