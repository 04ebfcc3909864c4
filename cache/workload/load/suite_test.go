package load_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// items is a source of items.
type items struct {
	mu   sync.Mutex
	rest []load.Item
}

func (s *items) Next(ctx context.Context) (load.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rest) == 0 {
		return load.Item{}, io.EOF
	}
	it := s.rest[0]
	s.rest = s.rest[1:]
	return it, ctx.Err()
}

func of(all ...load.Item) *items {
	for i := range all {
		all[i].Seq = uint64(i)
		if all[i].URI == "" {
			all[i].URI = strings.TrimPrefix(all[i].Path, "/")
		}
	}
	return &items{rest: all}
}

// run sends items and returns the results in the order of the items.
func run(t *testing.T, cfg load.Config, all ...load.Item) []load.Result {
	t.Helper()
	e, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	out := make([]load.Result, len(all))
	n := 0
	stats, err := e.Run(t.Context(), of(all...), func(r load.Result) { out[r.Seq] = r; n++ })
	if err != nil {
		t.Fatal(err)
	}
	if n != len(all) || stats.Sent != uint64(n) || stats.Ended != uint64(n) || stats.InFlight != 0 {
		t.Fatalf("%d results of %d items, %+v", n, len(all), stats)
	}
	return out
}

func to(s *httptest.Server) load.Config {
	return load.Config{Registries: []load.Registry{{Base: s.URL}}}
}

// registry is one in memory that wants what the specification says: digests that are
// right, parts that follow each other, and tokens when it is told to.
type registry struct {
	*httptest.Server
	t  *testing.T
	mu sync.Mutex
	// By repository and digest or tag.
	blobs, manifests map[string][]byte
	uploads          map[string][]byte
	requests         []string

	// before is called for each request; true: it has answered.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t *testing.T) *registry {
	r := &registry{t: t, blobs: map[string][]byte{}, manifests: map[string][]byte{}, uploads: map[string][]byte{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (g *registry) add(repository string, p []byte) digest.Digest {
	d := digest.FromBytes(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blobs[repository+"@"+d.String()] = p
	return d
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r.Method+" "+r.URL.RequestURI())
	g.mu.Unlock()
	if g.before != nil && g.before(w, r) {
		return
	}
	u := trace.Parse(r.URL.Path)
	switch u.Kind {
	case trace.Ping:
		w.WriteHeader(http.StatusOK)
	case trace.Upload:
		g.upload(w, r, u)
	case trace.Blob, trace.Manifest:
		g.object(w, r, u)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (g *registry) object(w http.ResponseWriter, r *http.Request, u trace.Target) {
	all := g.blobs
	if u.Kind == trace.Manifest {
		all = g.manifests
	}
	key := u.Repository + "@" + u.Reference
	if r.Method == http.MethodPut {
		p, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(p) || r.Header.Get("Content-Type") == "" {
			http.Error(w, "not a manifest", http.StatusBadRequest)
			return
		}
		g.mu.Lock()
		all[key] = p
		g.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		return
	}
	g.mu.Lock()
	p, ok := all[key]
	g.mu.Unlock()
	if !ok {
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(p).String())
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(p)))
}

func (g *registry) upload(w http.ResponseWriter, r *http.Request, u trace.Target) {
	p, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	q := r.URL.Query()
	if r.Method == http.MethodPost {
		if q.Get("mount") != "" {
			if p, ok := g.blobs[q.Get("from")+"@"+q.Get("mount")]; ok {
				g.blobs[u.Repository+"@"+q.Get("mount")] = p
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		u.Reference = rand.Text()
		g.uploads[u.Reference] = nil
	}
	have, ok := g.uploads[u.Reference]
	if span := r.Header.Get("Content-Range"); span != "" && span != fmt.Sprintf("%d-%d", len(have), len(have)+len(p)-1) {
		http.Error(w, "not where it goes on: "+span, http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if !ok || r.Method != http.MethodPost && q.Get("state") == "" {
		http.Error(w, "no such upload", http.StatusNotFound)
		return
	}
	have = append(have, p...)
	g.uploads[u.Reference] = have
	if r.Method == http.MethodPut {
		delete(g.uploads, u.Reference)
		if d := digest.FromBytes(have); d.String() != q.Get("digest") {
			http.Error(w, "it is "+d.String(), http.StatusBadRequest)
			return
		}
		g.blobs[u.Repository+"@"+q.Get("digest")] = have
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Location", "/v2/"+u.Repository+"/blobs/uploads/"+u.Reference+"?state="+rand.Text())
	w.WriteHeader(http.StatusAccepted)
}
