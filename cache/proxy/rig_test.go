package proxy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// rig is a handler with all its parts, in front of real registries.
type rig struct {
	dir      string
	cfg      proxy.Config
	permit   permit.Config
	fillCfg  fill.Config
	cacheCfg cache.Config
	routes   route.Config
	upstream proxy.Doer // nil: one without bounds

	handler *proxy.Handler
	cache   *cache.Cache
	index   *index.Index
	server  *httptest.Server
	client  *http.Client
	stop    func()

	mu      sync.Mutex
	records []proxy.Record
}

// newRig makes a rig whose default upstream is the first of the registries. The
// others go by ns=<their host>.
func newRig(t testing.TB, registries ...*registry) *rig {
	r := &rig{dir: t.TempDir(), routes: route.Config{Registries: make(map[string]route.Target)}}
	for i, g := range registries {
		target := route.Target{Scheme: "http", Host: g.host()}
		if i == 0 {
			r.routes.Default = &target
		}
		r.routes.Registries[g.host()] = target
	}
	r.cfg.Observer = r
	r.permit.NegativeTTL = -1
	return r
}

// Observe implements proxy.Observer.
func (r *rig) Observe(rec proxy.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, rec)
}

// observed returns the n records there are to be since the last call. The
// client may have its answer before the record is made.
func (r *rig) observed(t testing.TB, n int) []proxy.Record {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		if len(r.records) >= n {
			list := r.records
			r.records = nil
			r.mu.Unlock()
			return list
		}
		r.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("there were no %d records", n)
		}
	}
}

// start opens everything; what is in the folder stays across a stop.
func (r *rig) start(t testing.TB) *rig {
	t.Helper()
	var err error
	cfg := r.cacheCfg
	cfg.Dir, cfg.WholeBlobs = filepath.Join(r.dir, "content"), true
	if r.cache, err = cache.Open(cfg); err != nil {
		t.Fatal(err)
	}
	if r.index, err = index.Open(filepath.Join(r.dir, "index"), index.Config{}); err != nil {
		t.Fatal(err)
	}
	routes, err := route.New(r.routes)
	if err != nil {
		t.Fatal(err)
	}
	var up proxy.Doer = newDoer(t)
	if r.upstream != nil {
		up = r.upstream
	}
	group := fill.New(r.fillCfg)
	r.handler, err = proxy.New(r.cfg, proxy.Parts{
		Cache: r.cache, Index: r.index, Fill: group, Routes: routes,
		Permit: permit.New(r.permit, permit.Head(up.Do)), Upstream: up,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = group.Run(ctx) })
	wg.Go(func() { _ = r.index.Run(ctx) })
	r.server = httptest.NewServer(r.handler)
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200, DisableCompression: true}}
	r.stop = sync.OnceFunc(func() {
		r.server.Close()
		r.client.CloseIdleConnections()
		cancel()
		wg.Wait()
		if err := r.index.Close(); err != nil {
			t.Error(err)
		}
		if err := r.cache.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// request makes a request of user, "" for none.
func (r *rig) request(t testing.TB, method, path, user string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, r.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.Header.Set("Authorization", "Bearer "+user)
	}
	return req
}
