package sharedindex_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/redis/go-redis/v9"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
)

// world is a Redis that runs, and replicas that use it.
type world struct {
	addrs   []string
	cluster bool
	servers []*redistest.Server
}

func standalone(t testing.TB, args ...string) world {
	s := redistest.Start(t, args...)
	return world{addrs: []string{s.Addr()}, servers: []*redistest.Server{s}}
}

func cluster(t testing.TB, args ...string) world {
	c := redistest.StartCluster(t, args...)
	return world{addrs: c.Addrs(), cluster: true, servers: c.Nodes}
}

// onBoth runs a test on a server and on a cluster.
func onBoth(t *testing.T, f func(*testing.T, world)) {
	t.Run("standalone", func(t *testing.T) { f(t, standalone(t)) })
	t.Run("cluster", func(t *testing.T) { f(t, cluster(t)) })
}

// config has bounds and leases that a machine that does much else does not reach.
func (w world) config(replica string) sharedindex.Config {
	return sharedindex.Config{
		Addrs: w.addrs, Cluster: w.cluster, Prefix: "test", Replica: replica,
		LeaseTTL: time.Hour, Timeout: time.Minute, BeatTTL: time.Hour,
	}
}

func (w world) replica(t testing.TB, name string) *sharedindex.Index {
	t.Helper()
	return open(t, w.config(name))
}

// hasty returns a replica whose leases and claims run out at once.
func (w world) hasty(t testing.TB, name string) *sharedindex.Index {
	t.Helper()
	c := w.config(name)
	c.LeaseTTL = time.Millisecond
	return open(t, c)
}

func open(t testing.TB, c sharedindex.Config) *sharedindex.Index {
	t.Helper()
	x, err := sharedindex.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// run runs the probes of a replica for the time of the test.
func run(t testing.TB, x *sharedindex.Index) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// client returns a client for looking and for writing what no replica writes.
func (w world) client(t testing.TB) redis.UniversalClient {
	t.Helper()
	var c redis.UniversalClient = redis.NewClient(&redis.Options{Addr: w.addrs[0]})
	if w.cluster {
		c = redis.NewClusterClient(&redis.ClusterOptions{Addrs: w.addrs})
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// empty removes everything from all servers.
func (w world) empty(t testing.TB) {
	t.Helper()
	for _, s := range w.servers {
		c := s.Client()
		must(t, c.FlushAll(t.Context()).Err())
		c.Close()
	}
}

var serial atomic.Int64

// fresh returns a digest that no other test has.
func fresh() digest.Digest { return digest.FromString(strconv.FormatInt(serial.Add(1), 10)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, not %v", err, want)
	}
}

func locate(t testing.TB, x *sharedindex.Index, w sharedindex.Wanted) sharedindex.Place {
	t.Helper()
	p, err := x.Locate(t.Context(), w)
	must(t, err)
	return p
}

// wanted is bytes of a content.
func wanted(k sharedindex.Key, off, end int64) sharedindex.Wanted {
	return sharedindex.Wanted{Key: k, Extent: sharedindex.Extent{Off: off, End: end}}
}

// eventually repeats f until it has no error.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
