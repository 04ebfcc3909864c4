package cluster_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

const secret = "a long random text that only master and clients know"

// registry serves blobs that are named by their content, and counts requests. It holds
// requests back while it is held.
type registry struct {
	*httptest.Server
	mu   sync.Mutex
	hold chan struct{} // nil: it is not

	held, aborted int // requests that wait, and that were not waited for
}

func body(i int) string { return fmt.Sprintf("this is the content of blob %d", i) }

func newRegistry(t testing.TB) *registry {
	r := &registry{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	t.Cleanup(r.release)
	return r
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	hold := r.hold
	r.held++
	r.mu.Unlock()
	aborted := 0
	if hold != nil {
		select {
		case <-hold:
		case <-req.Context().Done():
			aborted = 1
		}
	}
	r.mu.Lock()
	r.held--
	r.aborted += aborted
	r.mu.Unlock()
	var i int
	fmt.Sscanf(req.URL.Path, "/v2/some/repo/blobs/%d", &i)
	io.WriteString(w, body(i))
}

// holdBack keeps all requests from now on waiting until release.
func (r *registry) holdBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = make(chan struct{})
}

func (r *registry) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hold != nil {
		close(r.hold)
		r.hold = nil
	}
}

// await waits until the requests that wait, and those that were aborted, are as wanted.
func (r *registry) await(t *testing.T, want func(held, aborted int) bool) {
	t.Helper()
	for range 1500 {
		r.mu.Lock()
		ok := want(r.held, r.aborted)
		r.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Errorf("%d requests wait, %d were aborted", r.held, r.aborted)
}

// job is one of the registry's.
func (r *registry) job() cluster.Job {
	return cluster.Job{Load: load.Config{Registries: []load.Registry{{Base: r.URL}}, Timeout: time.Minute}}
}

// items are so many requests for blobs, evenly spaced.
type items struct {
	mu      sync.Mutex
	n, next int
	every   time.Duration
	clients int // of the trace
	fail    error
}

func (s *items) Next(context.Context) (load.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.next
	if i >= s.n {
		if s.fail != nil {
			return load.Item{}, s.fail
		}
		return load.Item{}, io.EOF
	}
	s.next++
	text := body(i)
	return load.Item{
		Seq: uint64(i), Due: time.Duration(i) * s.every, Op: load.Get, Kind: trace.Blob,
		URI: fmt.Sprintf("v2/some/repo/blobs/%d", i), Path: fmt.Sprintf("/v2/some/repo/blobs/%d", i),
		Digest: digest.FromString(text), Size: int64(len(text)), Client: fmt.Sprint("client", i%max(s.clients, 1)),
	}, nil
}

func (s *items) given() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// results are what a run told.
type results struct {
	mu    sync.Mutex
	all   map[uint64]load.Result
	twice int
	on    func(n int) // called with how many there are
}

func (r *results) add(x load.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[uint64]load.Result{}
	}
	if _, ok := r.all[x.Seq]; ok {
		r.twice++
	}
	r.all[x.Seq] = x
	if r.on != nil {
		r.on(len(r.all))
	}
}

// causes counts the results by why they failed.
func (r *results) causes() map[load.Cause]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[load.Cause]int{}
	for _, x := range r.all {
		out[x.Cause]++
	}
	return out
}

// client starts a client in this process and returns its address.
func client(t testing.TB, more func(*cluster.ClientConfig)) string {
	t.Helper()
	addr, _ := clientUntil(t, more)
	return addr
}

// clientUntil also returns what ends it and waits for that.
func clientUntil(t testing.TB, more func(*cluster.ClientConfig)) (addr string, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := cluster.ClientConfig{Listener: l, Secret: secret, Version: "v1", Log: logger(t)}
	if more != nil {
		more(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cluster.Serve(ctx, cfg) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the client ended: %v", err)
		}
	})
	t.Cleanup(end)
	return l.Addr().String(), end
}

// logger writes to the test's log.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	if os.Getenv("CLUSTER_LOG") != "" {
		fmt.Fprintf(os.Stderr, "%s: %s", l.t.Name(), p)
	}
	return len(p), nil
}

// master returns one with short times.
func master(t testing.TB, job cluster.Job, more func(*cluster.MasterConfig), clients ...string) *cluster.Master {
	t.Helper()
	cfg := cluster.MasterConfig{
		Clients: clients, Secret: secret, Version: "v1", Job: job,
		Heartbeat: 2 * time.Second, StartIn: 500 * time.Millisecond,
	}
	if more != nil {
		more(&cfg)
	}
	m, err := cluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// leakless fails the test if goroutines are left when all else of it is cleaned up.
func leakless(t testing.TB) {
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		var n int
		for range 200 {
			if n = runtime.NumGoroutine(); n <= before {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		all := make([]byte, 1<<20)
		all = all[:runtime.Stack(all, true)]
		t.Errorf("%d goroutines, before %d:\n%s", n, before, strings.TrimSpace(string(all)))
	})
}
