package indexcost_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
)

var secret = bytes.Repeat([]byte{7}, 32)

// node is a replica as the registry cache has it, without its HTTP.
type node struct {
	*cluster.Cluster
	cache *cache.Cache
	group *fill.Group
	index *sharedindex.Index
}

// node starts a replica, which shares by the rig's Redis, and by store if there is one.
func (r *rig) node(store tier.Store) *node {
	t := r.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var n node
	var err error
	n.cache, err = cache.Open(cache.Config{Dir: t.TempDir(), WholeBlobs: true})
	must(err)
	t.Cleanup(func() { n.cache.Close() })
	who, err := peer.NewIdentity(secret)
	must(err)
	server := httptest.NewUnstartedServer(peer.Handler(&n))
	self := server.Listener.Addr().String()
	server.Listener = tls.NewListener(server.Listener, who.Server())
	n.index, err = sharedindex.New(sharedindex.Config{Addrs: []string{r.server.Addr()}, Replica: self, Timeout: patience})
	must(err)
	t.Cleanup(func() { n.index.Close() })
	cfg := cluster.Config{
		Self: self, Index: n.index, Peers: peer.NewClient(who, 10*time.Second), Position: t.TempDir() + "/position",
		OnError: func(err error) { t.Logf("%s: %v", self, err) },
	}
	t.Cleanup(cfg.Peers.Close)
	if store != nil {
		cfg.Tier, err = tier.New(store, tier.Config{Secret: secret})
		must(err)
	}
	cfg.Secret = secret
	n.Cluster, err = cluster.New(cfg, n.cache)
	must(err)
	n.group = fill.New(fill.Config{OnVerified: n.Verified})
	n.Serve(n.group)
	server.Start()
	t.Cleanup(server.Close)
	for _, f := range []func(context.Context) error{n.group.Run, n.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- f(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return &n
}

// body is a blob, and its own upstream.
type body struct {
	data []byte
	desc ocispec.Descriptor
	sent int64
}

// Open implements fill.Source.
func (b *body) Open(_ context.Context, off, n int64) (io.ReadCloser, error) {
	b.sent += n
	return io.NopCloser(bytes.NewReader(b.data[off : off+n])), nil
}

// pull reads a blob by way of a replica.
func (n *node) pull(ctx context.Context, b *body) error {
	x, err := n.cache.Hold(origin, b.desc)
	if err != nil {
		return err
	}
	defer x.Release()
	r := n.group.Reader(ctx, x, n.Source(origin, b.desc, b), 0, b.desc.Size)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, b.data) {
		err = fmt.Errorf("%d bytes are not those of the blob", len(got))
	}
	return err
}

// TestRules has real replicas, a real Redis and a real tier asked for blobs, one after
// the other, and compares what they did with what the simulator says of the same
// requests: each operation on the index, and what came from where.
func TestRules(t *testing.T) {
	for _, withTier := range []bool{false, true} {
		t.Run(fmt.Sprintf("tier=%t", withTier), func(t *testing.T) { compare(t, withTier) })
	}
}

func compare(t *testing.T, withTier bool) {
	const replicas, objects, requests = 4, 25, 120
	r := newRig(t)
	var store tier.Store
	c := simulate.Cluster{Replicas: []int{replicas}, Spread: simulate.ByTurn, L1: simulate.Size{Bytes: 1 << 40}}
	if withTier {
		var err error
		if store, err = tier.NewDir(t.TempDir()); err != nil {
			t.Fatal(err)
		}
		c.L2 = simulate.Size{Bytes: 1 << 40}
	}
	r.load()
	var nodes []*node
	for range replicas {
		nodes = append(nodes, r.node(store))
	}
	d := &simulate.Decoded{Nodes: 1}
	var blobs []*body
	for i := range objects {
		n := 1000 + i*100_000 // some larger than what the tier is looked through for
		data := cachetest.Random(n, uint64(i))
		blobs = append(blobs, &body{data: data, desc: ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(n)}})
		d.Sizes, d.Kinds = append(d.Sizes, int64(n)), append(d.Kinds, trace.Blob)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range requests {
		id := rng.IntN(objects)
		d.Accesses.Add(simulate.Access{Time: int64(i), ID: uint32(id)})
		if err := nodes[i%replicas].pull(t.Context(), blobs[id]); err != nil {
			t.Fatal(err)
		}
		// What is done in the background is done before the next request, as it is where
		// fetches take no time.
		want := simulated(t, d, c)
		settle(t, i+1, nodes, want.Redis.Ops)
	}
	want := simulated(t, d, c)
	sent := int64(0)
	for _, b := range blobs {
		sent += b.sent
	}
	if sent != want.Fetched.Bytes {
		t.Errorf("%d bytes came from the upstream, simulated are %d", sent, want.Fetched.Bytes)
	}
	var peers, lists int64
	for _, n := range nodes {
		s := n.Stats()
		peers += s.Peers.Bytes
		lists += int64(s.Shared.Finds)
	}
	t.Logf("%d bytes of the upstream, %d of peers, %d lists of the tier, %+v", sent, peers, lists, want.Redis.Ops)
	if peers != want.Between.Bytes || withTier && uint64(lists) != want.Tier.Lists {
		t.Errorf("peers sent %d bytes, %d lists; simulated are %d and %d", peers, lists, want.Between.Bytes, want.Tier.Lists)
	}
}

// load has Redis know the scripts: who uses one first sends it after the operation failed.
func (r *rig) load() {
	r.t.Helper()
	x, ctx, k := r.replica(99), context.Background(), blob(0)
	token, _, err := x.Claim(ctx, k.Digest)
	check(r.t, err)
	check(r.t, x.Publish(ctx, k.Digest, sharedindex.Stored{Generation: token, Size: size}))
	check(r.t, x.Hold(ctx, k))
	check(r.t, lease(ctx, x, 1))
	_, err = x.Look(ctx, k)
	check(r.t, err)
}

func simulated(t *testing.T, d *simulate.Decoded, c simulate.Cluster) simulate.ClusterCell {
	t.Helper()
	r, err := simulate.Run(t.Context(), d, simulate.Config{Cluster: c})
	if err != nil {
		t.Fatal(err)
	}
	return r.Cluster[1]
}

// settle waits until the replicas did all the operations on the index that are expected,
// and fails if they do others.
func settle(t *testing.T, requests int, nodes []*node, want simulate.RedisOps) {
	t.Helper()
	want.Locate, want.Look = want.Locate+want.Look, 0 // which are counted as one
	var got simulate.RedisOps
	for range 500 {
		all := map[string]uint64{}
		for _, n := range nodes {
			for name, count := range n.index.Stats().Ops {
				all[name] += count
			}
		}
		got = simulate.RedisOps{
			Locate: all["locate"], Renew: all["renew"], Release: all["release"], Hold: all["hold"], Drop: all["drop"], Claim: all["claim"],
			RenewClaim: all["renew_claim"], Publish: all["publish"], Unpublish: all["unpublish"], Granted: all["granted"], Grant: all["grant"],
		}
		if got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after %d requests, operations on the index are\n%+v, simulated are\n%+v", requests, got, want)
}
