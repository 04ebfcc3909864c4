package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/fill"
)

const origin = "registry.example.com"

var secret = bytes.Repeat([]byte("the cluster's secret "), 2)

// world is what replicas share.
type world struct {
	t     testing.TB
	redis []string   // nil: none
	store tier.Store // nil: none
	lease time.Duration
}

// newWorld starts a Redis server, and makes a folder for the tier.
func newWorld(t testing.TB) (*world, *redistest.Server) {
	t.Helper()
	s := redistest.Start(t)
	dir, err := tier.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, redis: []string{s.Addr()}, store: dir, lease: 10 * time.Second}, s
}

// replica is a cache in a cluster.
type replica struct {
	*cluster.Cluster
	t           testing.TB
	name        string
	dir         string // of the cache
	position    string
	stopSharing func()
	cache       *cache.Cache
	group       *fill.Group
	index       *sharedindex.Index
	tier        *tier.Tier
	peers       *httptest.Server // nil: none

	mu   sync.Mutex
	told []string
}

// replica starts one. Where idle, its part in the cluster does nothing by itself.
func (w *world) replica(idle bool) *replica {
	t := w.t
	t.Helper()
	r := &replica{t: t}
	var err error
	r.dir = t.TempDir()
	if r.cache, err = cache.Open(cache.Config{Dir: r.dir, WholeBlobs: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cache.Close() })
	r.position = t.TempDir() + "/position"
	cfg := cluster.Config{
		LeaseTTL: w.lease, Secret: secret, Position: r.position,
		OnAnnouncement: func(_ context.Context, payload []byte, _ bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, string(payload))
		},
		OnError: func(err error) { t.Logf("%s: %v", r.name, err) },
		Status:  func() []byte { return []byte(`{"name":"` + r.name + `"}`) },
	}
	if w.store != nil {
		if r.tier, err = tier.New(w.store, tier.Config{Secret: secret}); err != nil {
			t.Fatal(err)
		}
		cfg.Tier = r.tier
	}
	if w.redis != nil {
		w.join(r, &cfg)
	}
	if r.Cluster, err = cluster.New(cfg, r.cache); err != nil {
		t.Fatal(err)
	}
	r.group = fill.New(fill.Config{OnVerified: r.Verified, OnMismatch: r.Mismatched, Backoff: time.Millisecond})
	r.Serve(r.group)
	r.run("fetching", r.group.Run)
	if !idle {
		r.stopSharing = r.run("sharing", r.Cluster.Run)
	} else if r.index != nil {
		r.run("probing", r.index.Run)
	}
	return r
}

// join gives a replica its index, and serves its peers.
func (w *world) join(r *replica, cfg *cluster.Config) {
	t := w.t
	who, err := peer.NewIdentity(secret)
	if err != nil {
		t.Fatal(err)
	}
	r.peers = httptest.NewUnstartedServer(peer.Handler(late{r}))
	r.name = r.peers.Listener.Addr().String()
	r.peers.Listener = tls.NewListener(r.peers.Listener, who.Server())
	r.peers.Start()
	t.Cleanup(r.peers.Close)
	r.index, err = sharedindex.New(sharedindex.Config{
		Addrs: w.redis, Replica: r.name, Secret: secret, LeaseTTL: w.lease, Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.index.Close() })
	cfg.Self, cfg.Index, cfg.Peers = r.name, r.index, peer.NewClient(who, w.lease)
	t.Cleanup(cfg.Peers.Close)
}

// late provides what a replica has that is put together after its peers are served.
type late struct{ r *replica }

func (l late) Provide(ctx context.Context, r peer.Request) (io.ReadCloser, int64, error) {
	return l.r.Provide(ctx, r)
}

// run runs something for the time of the test, or until the function it returns is called.
func (r *replica) run(what string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("%s: %v", what, err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// content is some.
type content struct {
	data []byte
	desc ocispec.Descriptor
}

func newBlob(size int, seed uint64) content {
	data := cachetest.Random(size, seed)
	return content{data, ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)}}
}

// read reads n bytes at off by way of a replica, with up as its upstream.
func (r *replica) read(ctx context.Context, b content, up fill.Source, off, n int64) error {
	x, err := r.cache.Hold(origin, b.desc)
	if err != nil {
		return err
	}
	defer x.Release()
	rd := r.group.Reader(ctx, x, r.Source(origin, b.desc, up), off, n)
	defer rd.Close()
	got, err := io.ReadAll(rd)
	if !bytes.HasPrefix(b.data[off:], got) {
		return fmt.Errorf("wrong bytes in %d at %d", len(got), off)
	}
	if err == nil && int64(len(got)) != n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("reading %d bytes at %d by %s: after %d: %w", n, off, r.name, len(got), err)
	}
	return nil
}

// whole is read of all.
func (r *replica) whole(ctx context.Context, b content, up fill.Source) error {
	return r.read(ctx, b, up, 0, b.desc.Size)
}

// upstream is a registry with one blob.
type upstream struct {
	b    content
	hook func(ctx context.Context, pos int64) error // before each piece; optional
	fail func(off int64) error                      // of Open; optional

	mu    sync.Mutex
	sent  int64
	opens int
}

// Open implements fill.Source.
func (u *upstream) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	u.mu.Lock()
	u.opens++
	u.mu.Unlock()
	if u.fail != nil {
		if err := u.fail(off); err != nil {
			return nil, err
		}
	}
	return &answer{u: u, ctx: ctx, pos: off, end: off + n}, nil
}

func (u *upstream) bytes() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

type answer struct {
	u        *upstream
	ctx      context.Context
	pos, end int64
	mu       sync.Mutex
	closed   bool
}

func (a *answer) Read(p []byte) (int, error) {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return 0, errors.New("it was closed")
	}
	if a.u.hook != nil {
		if err := a.u.hook(a.ctx, a.pos); err != nil {
			return 0, err
		}
	}
	if a.pos == a.end {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 32<<10)], a.u.b.data[a.pos:a.end])
	a.pos += int64(n)
	a.u.mu.Lock()
	a.u.sent += int64(n)
	a.u.mu.Unlock()
	return n, nil
}

func (a *answer) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return nil
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("it was never so that %s", what)
}

// objects returns how many objects the tier has.
func (w *world) objects() (n int) {
	err := w.store.List(w.t.Context(), "v1/", func(tier.Entry) error { n++; return nil })
	if err != nil {
		w.t.Error(err)
	}
	return n
}

// stored returns what the tier has of a blob.
func (r *replica) stored(b content) (tier.Object, bool) {
	o, found, err := r.tier.Find(r.t.Context(), b.desc.Digest)
	return o, found && err == nil
}

// known reports whether the index says that the tier has the blob.
func (r *replica) known(b content) bool {
	place, err := r.index.Look(r.t.Context(), sharedindex.Key{Digest: b.desc.Digest})
	return err == nil && place.Stored != nil
}
