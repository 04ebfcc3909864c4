package warmup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cache/workload/warmup"
)

// registry is one in memory that refuses what refuse says.
type registry struct {
	*httptest.Server
	mu      sync.Mutex
	content map[string][]byte // by path
	pushes  map[string]int    // PUTs, by repository and digest or tag
	mounts  int
	refuse  func(r *http.Request) int // status; 0: not
}

func newRegistry(t *testing.T) *registry {
	r := &registry{content: map[string][]byte{}, pushes: map[string]int{}, refuse: func(*http.Request) int { return 0 }}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (s *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if status := s.refuse(r); status != 0 {
		http.Error(w, "refused", status)
		return
	}
	switch {
	case r.Method == http.MethodPost:
		repo := strings.TrimSuffix(r.URL.Path, "blobs/uploads/")
		if from, mount := r.URL.Query().Get("from"), r.URL.Query().Get("mount"); from != "" {
			if b, ok := s.content["/v2/"+from+"/blobs/"+mount]; ok {
				s.content[repo+"blobs/"+mount] = b
				s.mounts++
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/"):
		d := r.URL.Query().Get("digest")
		if digest.FromBytes(body).String() != d {
			http.Error(w, "digest", http.StatusBadRequest)
			return
		}
		repo, _, _ := strings.Cut(r.URL.Path, "blobs/uploads/")
		s.content[repo+"blobs/"+d] = body
		s.pushes[repo+d]++
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut:
		d := digest.FromBytes(body).String()
		dir := r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')+1]
		s.content[r.URL.Path], s.content[dir+d] = body, body
		s.pushes[r.URL.Path]++
		w.WriteHeader(http.StatusCreated)
	default:
		b, ok := s.content[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(b).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		if r.Method == http.MethodGet {
			w.Write(b)
		}
	}
}

// client returns one for the registry.
func (s *registry) client(t *testing.T) *load.Client {
	t.Helper()
	c, err := load.NewClient(load.Config{Registries: []load.Registry{{Base: s.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func get(client, uri string, size int64) trace.Request {
	return trace.Request{Method: "GET", Client: client, URI: uri, Size: size, Status: 200}
}

// asked is a trace: two pulls that share a layer, a manifest that is only looked at,
// and what is not to be pushed.
func asked() []trace.Request {
	return []trace.Request{
		get("1", "v2", 2),
		get("1", "v2/a/b/manifests/t1", 2000),
		get("2", "v2/a/b/manifests/t2", 700),
		get("1", "v2/a/b/blobs/x", 5000),
		get("2", "v2/a/b/blobs/y", 10),
		get("1", "v2/a/b/blobs/z", 0),
		get("2", "v2/a/b/blobs/x", 5001), // larger than it was
		get("1", "v2/a/c/manifests/t1", 600),
		{Method: "HEAD", Client: "1", URI: "v2/a/c/blobs/x", Status: 200},
		{Method: "GET", Client: "1", URI: "v2/a/b/blobs/gone", Status: 404, Size: 100},
		{Method: "PUT", Client: "1", URI: "v2/a/b/blobs/pushed", Status: 201, Size: 100},
		get("1", "v2/a/b/blobs/x", 5000),
	}
}

func warm(t *testing.T, s *registry, known outcome.Map, cfg warmup.Config) (outcome.Map, warmup.Stats) {
	t.Helper()
	if cfg.Maker == nil {
		cfg.Maker = content.New(1, false)
	}
	cfg.Threads = 8
	m, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(asked()...), known, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m, stats
}

func TestRun(t *testing.T) {
	s := newRegistry(t)
	m, stats := warm(t, s, nil, warmup.Config{Verify: 1})
	want := []string{"v2/a/b/blobs/x", "v2/a/b/blobs/y", "v2/a/b/blobs/z", "v2/a/b/manifests/t1", "v2/a/b/manifests/t2", "v2/a/c/blobs/x", "v2/a/c/manifests/t1"}
	if got := slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
		t.Errorf("the map has %v", got)
	}
	if stats.Objects != 7 || stats.Done != 7 || stats.Pushed != 7 || stats.Verified != 7 || stats.Bad != 0 {
		t.Errorf("%+v", stats)
	}
	for what, n := range s.pushes {
		if n != 1 && !strings.Contains(what, "a/b/sha256") { // both configurations without layers are one
			t.Errorf("%s was pushed %d times", what, n)
		}
	}
	if b := s.content["/v2/a/b/blobs/"+m["v2/a/b/blobs/x"]]; len(b) != 5001 {
		t.Errorf("x has %d bytes", len(b))
	}
	for uri, layers := range map[string][]string{
		"v2/a/b/manifests/t1": {"v2/a/b/blobs/x", "v2/a/b/blobs/z"},
		"v2/a/b/manifests/t2": {"v2/a/b/blobs/y", "v2/a/b/blobs/x"},
		"v2/a/c/manifests/t1": {"v2/a/c/blobs/x"},
	} {
		text := s.content["/"+uri] // by its tag
		if digest.FromBytes(text).String() != m[uri] {
			t.Errorf("%s is not what the map says", uri)
		}
		var manifest ocispec.Manifest
		if err := json.Unmarshal(text, &manifest); err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, l := range manifest.Layers {
			got = append(got, l.Digest.String())
		}
		for _, l := range layers {
			want = append(want, m[l])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %v, want %v", uri, got, want)
		}
	}
	if n := len(s.content["/v2/a/b/manifests/t1"]); n != 2000 {
		t.Errorf("a manifest has %d bytes, 2000 were recorded", n)
	}
}

// A second warmup pushes what is missing and nothing else.
func TestResume(t *testing.T) {
	s := newRegistry(t)
	m, _ := warm(t, s, nil, warmup.Config{})
	delete(s.content, "/v2/a/b/blobs/"+m["v2/a/b/blobs/y"])
	m["v2/a/b/blobs/z"] = outcome.Bad
	delete(m, "v2/a/c/manifests/t1")
	again, stats := warm(t, s, m, warmup.Config{})
	if stats.Present != 4 || stats.Pushed != 3 || len(again) != 7 || again["v2/a/b/blobs/z"] == outcome.Bad {
		t.Errorf("%+v, %v", stats, again)
	}
}

// What cannot be pushed is bad, and manifests do without it; what may pass is tried
// again.
func TestRefusals(t *testing.T) {
	s := newRegistry(t)
	x, _ := content.New(1, false).Digest(t.Context(), "v2/a/b/blobs/x", 5001)
	busy := 0
	s.refuse = func(r *http.Request) int {
		if r.URL.Query().Get("digest") == x.String() && strings.Contains(r.URL.Path, "/a/b/") {
			return http.StatusForbidden
		}
		if r.Method == http.MethodPost && busy < 2 {
			busy++
			return http.StatusServiceUnavailable
		}
		return 0
	}
	m, stats := warm(t, s, nil, warmup.Config{Verify: 1})
	if m["v2/a/b/blobs/x"] != outcome.Bad || stats.Bad != 1 || stats.Pushed != 6 || stats.Why["status"]+stats.Why["auth"] != 1 || !strings.Contains(stats.Example, "v2/a/b/blobs/x") {
		t.Errorf("%v, %+v", m, stats)
	}
	if text := s.content["/v2/a/b/manifests/t1"]; bytes.Contains(text, []byte(x)) {
		t.Errorf("a manifest lists what is not there: %s", text)
	}
	s.refuse = func(*http.Request) int { return http.StatusForbidden }
	if _, _, err := warmup.Run(t.Context(), s.client(t), trace.Of(asked()...), nil, warmup.Config{Maker: content.New(2, false)}); err == nil {
		t.Error("a registry that refuses everything is no error")
	}
	gone := newRegistry(t)
	c := gone.client(t)
	gone.Close()
	if _, _, err := warmup.Run(t.Context(), c, trace.Of(asked()...), nil, warmup.Config{Maker: content.New(2, false)}); err == nil {
		t.Error("a registry that is not there is no error")
	}
}

// A registry that returns something else is found out.
func TestVerify(t *testing.T) {
	s := newRegistry(t)
	s.refuse = func(r *http.Request) int {
		for path, b := range s.content {
			if r.Method == http.MethodGet && strings.Contains(path, "/blobs/") && len(b) == 10 {
				clear(b)
			}
		}
		return 0
	}
	m, stats := warm(t, s, nil, warmup.Config{Verify: 1})
	if m["v2/a/b/blobs/y"] != outcome.Bad || stats.Why[string(load.CauseMismatch)] != 1 {
		t.Errorf("%v, %+v", m, stats)
	}
}

// Blobs that share content are there in their own repositories.
func TestDedupe(t *testing.T) {
	var requests []trace.Request
	for i := range 400 {
		requests = append(requests, get("1", fmt.Sprintf("v2/r%d/blobs/%d", i%7, i), int64(1000+i)))
	}
	for _, share := range []float64{0, 0.4} {
		s := newRegistry(t)
		m, stats, err := warmup.Run(t.Context(), s.client(t), trace.Of(requests...), nil, warmup.Config{Maker: content.New(1, false), Dedupe: share, Threads: 4})
		if err != nil {
			t.Fatal(err)
		}
		distinct := map[string]bool{}
		for uri, d := range m {
			distinct[d] = true
			if repo, _, _ := strings.Cut(uri, "/blobs/"); s.content["/"+repo+"/blobs/"+d] == nil {
				t.Errorf("%s is not in its repository", uri)
			}
		}
		got := 1 - float64(len(distinct))/float64(len(m))
		t.Logf("%.2f: %.3f of the blobs have another's content, %+v", share, got, stats)
		if got < share-0.06 || got > share+0.06 || share > 0 && s.mounts == 0 {
			t.Errorf("%.3f of the blobs have another's content, want %.2f", got, share)
		}
	}
}

// As the original: everything a blob in one repository.
func TestOriginal(t *testing.T) {
	s := newRegistry(t)
	m, _ := warm(t, s, nil, warmup.Config{Blobs: true, Repository: "test_repo", Maker: content.New(0, true)})
	for uri, d := range m {
		if s.content["/v2/test_repo/blobs/"+d] == nil {
			t.Errorf("%s is not there", uri)
		}
	}
	if len(m) != 7 {
		t.Errorf("%v", m)
	}
}

// The map is saved, also when the warmup ends early.
func TestSave(t *testing.T) {
	s := newRegistry(t)
	var saved outcome.Map
	full := errors.New("disk full")
	_, _, err := warmup.Run(t.Context(), s.client(t), trace.Of(asked()...), nil, warmup.Config{
		Maker: content.New(1, false), Save: func(m outcome.Map) error { saved = maps.Clone(m); return full },
	})
	if len(saved) != 7 || !errors.Is(err, full) {
		t.Errorf("%v, %v", saved, err)
	}
}
