package permit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// redisTest is a test on nodes of Redis; each call of shared is another replica's view.
type redisTest = func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server)

func onServer(t *testing.T, f redisTest) {
	s := redistest.Start(t)
	onNodes(t, []string{s.Addr()}, []*redistest.Server{s}, f)
}

// onRedis runs a test on a server and on a cluster.
func onRedis(t *testing.T, f redisTest) {
	t.Run("server", func(t *testing.T) { onServer(t, f) })
	t.Run("cluster", func(t *testing.T) {
		c := redistest.StartCluster(t)
		onNodes(t, c.Addrs(), c.Nodes, f)
	})
}

func onNodes(t *testing.T, addrs []string, nodes []*redistest.Server, f redisTest) {
	cluster := len(nodes) > 1
	f(t, func() permit.Shared {
		x, err := sharedindex.New(sharedindex.Config{
			Addrs: addrs, Cluster: cluster, Prefix: "test", Replica: fmt.Sprint("replica", replicas.Add(1)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { x.Run(ctx); close(ended) }()
		t.Cleanup(func() { cancel(); <-ended; x.Close() })
		return x
	}, nodes)
}

var replicas atomic.Int64

// until repeats a check as long as the place fails: on a machine that does much else, a
// call may take too long.
func until(t *testing.T, c *permit.Checker, r permit.Resource, auth permit.Secret, want string) {
	t.Helper()
	for t.Context().Err() == nil {
		before := c.Stats().SharedErrors
		d, err := c.Check(t.Context(), r, auth, permit.Range)
		if c.Stats().SharedErrors == before {
			if got := answer(d, err); got != want {
				t.Fatalf("%s, want %s", got, want)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// allow asks for a resource until that is shared.
func allow(t *testing.T, c *permit.Checker, r permit.Resource, auth permit.Secret) {
	t.Helper()
	for before := c.Stats().SharedKept; c.Stats().SharedKept == before && t.Context().Err() == nil; {
		c.Forget(nil)
		expect(t, c, r, auth, permit.Range, "200")
	}
}

// TestRedisIsolation: what one replica was allowed, another finds in Redis for that
// credential and resource only, and Redis has nothing that says whose and what it is.
func TestRedisIsolation(t *testing.T) {
	const credential = "Bearer HIDDEN-CREDENTIAL"
	elsewhere, digest, accept := blobOf("private/repo"), blobOf("private/repo"), tagOf("private/repo", "sometag-of-mine")
	elsewhere.Target = route.Target{Scheme: "https", Host: "other.example.com"}
	digest.Reference = "sha256:" + sha[8:71] + "0"
	accept.Accept = "y"
	onRedis(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		g, away := &registry{status: 200}, &registry{}
		first, second := replica(t, long, g, shared()), replica(t, long, away, shared())
		allowed := []permit.Resource{blobOf("private/repo"), tagOf("private/repo", "sometag-of-mine")}
		for _, r := range allowed {
			allow(t, first, r, credential)
		}
		for _, other := range []struct {
			r    permit.Resource
			auth permit.Secret
		}{
			{blobOf("private/repo"), ""}, {blobOf("private/repo"), credential + "x"}, {tagOf("private/repo", "sometag-of-mine"), "Bearer b"},
			{blobOf("private/repo2"), credential}, {blobOf("private"), credential}, {elsewhere, credential}, {digest, credential},
			{accept, credential}, {tagOf("private/repo", "latest"), credential},
		} {
			until(t, second, other.r, other.auth, "error")
		}
		if s := second.Stats(); s.SharedHits != 0 || s.SharedInvalid != 0 {
			t.Fatalf("%+v", s)
		}
		for _, r := range allowed {
			until(t, second, r, credential, "200 cached")
		}
		all := everything(t, nodes)
		if !bytes.Contains(all, []byte("test:")) {
			t.Fatal("nothing is there")
		}
		for _, s := range []string{"HIDDEN-CREDENTIAL", "private/repo", "sometag-of-mine", "registry.example.com", string(secret)} {
			encoded := base64.RawStdEncoding.EncodeToString([]byte(s))
			for _, form := range []string{s, strings.ToLower(s), hex.EncodeToString([]byte(s)), encoded[:len(encoded)-1]} {
				if bytes.Contains(all, []byte(form)) {
					t.Errorf("%q is in Redis as %q", s, form)
				}
			}
		}
	})
}

// everything returns all keys of Redis and what is in them.
func everything(t *testing.T, nodes []*redistest.Server) []byte {
	var all bytes.Buffer
	for _, n := range nodes {
		c := n.Client()
		defer c.Close()
		keys, err := c.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			v, err := c.Get(t.Context(), k).Result()
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			all.WriteString(k + "=" + v + "\n")
			if ttl := c.PTTL(t.Context(), k).Val(); ttl <= 0 {
				t.Errorf("%s has no TTL", k)
			}
		}
	}
	return all.Bytes()
}

// refuse tells of a refusal until the place knows.
func refuse(t *testing.T, c *permit.Checker, r permit.Resource, auth permit.Secret) {
	t.Helper()
	for t.Context().Err() == nil {
		before := c.Stats().SharedErrors
		c.Denied(t.Context(), r, auth, 403)
		if c.Stats().SharedErrors == before {
			return
		}
	}
}

// TestRedisRevocation: a refusal ends at once what is in Redis, for those who have not
// kept it themselves.
func TestRedisRevocation(t *testing.T) {
	onRedis(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		g, away := &registry{status: 200}, &registry{}
		first, second, third := replica(t, long, g, shared()), replica(t, long, away, shared()), replica(t, long, away, shared())
		allow(t, first, blobOf("a"), "Bearer a")
		until(t, second, blobOf("a"), "Bearer a", "200 cached")
		refuse(t, first, blobOf("a"), "Bearer a")
		until(t, third, blobOf("a"), "Bearer a", "error")
		if s := third.Stats(); s.SharedHits != 0 || s.SharedInvalid != 0 {
			t.Errorf("%+v", s)
		}
		until(t, second, blobOf("a"), "Bearer a", "200 cached")
		g.set(403)
		expect(t, first, blobOf("a"), "Bearer a", permit.Range, "403")
		g.set(200)
		allow(t, first, blobOf("a"), "Bearer a")
		until(t, third, blobOf("a"), "Bearer a", "200 cached")
	})
}

// TestRedisRevocationEverywhere: what another replica has kept itself ends within the TTL.
func TestRedisRevocationEverywhere(t *testing.T) {
	onServer(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		const ttl = 3 * time.Second
		cfg := permit.Config{RangeTTL: ttl, NegativeTTL: -1}
		g, away := &registry{status: 200}, &registry{}
		first, second := replica(t, cfg, g, shared()), replica(t, cfg, away, shared())
		for second.Stats().SharedHits == 0 && t.Context().Err() == nil {
			allow(t, first, blobOf("a"), "Bearer a")
			second.Check(t.Context(), blobOf("a"), "Bearer a", permit.Range) // finds it, if it is not too slow
		}
		refuse(t, first, blobOf("a"), "Bearer a")
		told := time.Now()
		time.Sleep(time.Until(told.Add(ttl)))
		expect(t, second, blobOf("a"), "Bearer a", permit.Range, "error")
	})
}

// TestRedisMadeUp: credentials that the upstream never allowed leave nothing in Redis,
// until it refuses them; and that ends soon.
func TestRedisMadeUp(t *testing.T) {
	onRedis(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		away := &registry{}
		c := replica(t, long, away, shared())
		for i := range 50 {
			until(t, c, blobOf("a"), permit.Secret(fmt.Sprint("Bearer ", i)), "error")
		}
		if all := everything(t, nodes); len(all) != 0 {
			t.Errorf("%q is in Redis", all)
		}
	})
}

// TestRedisAway: without Redis each replica asks for itself, and with it again they
// share again.
func TestRedisAway(t *testing.T) {
	s := redistest.Start(t)
	x, err := sharedindex.New(sharedindex.Config{Addrs: []string{s.Addr()}, Prefix: "test", Replica: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { x.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended; x.Close() }()
	g := &registry{status: 200}
	c := replica(t, long, g, x)
	expect(t, c, blobOf("a"), "", permit.Range, "200")
	s.Kill()
	expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
	expect(t, c, blobOf("b"), "", permit.Range, "200")
	g.set(403)
	expect(t, c, blobOf("c"), "", permit.Range, "403")
	if st := c.Stats(); st.SharedErrors < 3 {
		t.Errorf("%+v", st)
	}
	g.set(200)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 0; c.Stats().SharedKept < 2; i++ {
		expect(t, c, blobOf(fmt.Sprint("d", i)), "", permit.Range, "200")
		time.Sleep(20 * time.Millisecond)
	}
}

// TestRedisTampered: who writes to Redis what they like, grants nothing.
func TestRedisTampered(t *testing.T) {
	onServer(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		g, away := &registry{status: 200}, &registry{}
		first := replica(t, long, g, shared())
		for _, auth := range []permit.Secret{"Bearer mine", "Bearer other"} {
			allow(t, first, blobOf("a"), auth)
		}
		second := replica(t, long, away, shared())
		values, epochs := make(map[string]string), make(map[string]string)
		for _, n := range nodes {
			c := n.Client()
			defer c.Close()
			for _, k := range c.Keys(t.Context(), "*").Val() {
				if scope, ok := strings.CutSuffix(k, ":epoch"); ok {
					epochs[scope] = c.Get(t.Context(), k).Val()
				} else {
					values[k] = c.Get(t.Context(), k).Val()
				}
			}
		}
		n := permit.NameOf(second, blobOf("a"), "Bearer attacker")
		text := base64.RawURLEncoding.EncodeToString
		mine := "test:{" + text(n.Scope[:]) + "}"
		if len(values) != 2 || len(epochs) != 2 {
			t.Fatalf("values %q, epochs %q", values, epochs)
		}
		c := nodes[0].Client()
		defer c.Close()
		for k, v := range values { // with its own epoch, and another one that it is made to say
			_, sealed, _ := strings.Cut(v, " ")
			for _, epoch := range []string{epochs[k[:strings.Index(k, "}")+1]], "7"} {
				c.Set(t.Context(), mine+":epoch", epoch, time.Hour)
				c.Set(t.Context(), mine+":item:"+text(n.Item[:]), epoch+" "+sealed, time.Hour)
				attacker := replica(t, long, away, shared())
				until(t, attacker, blobOf("a"), "Bearer attacker", "error")
				if s := attacker.Stats(); s.SharedInvalid == 0 {
					t.Errorf("it was not read: %+v", s)
				}
			}
		}
	})
}

// TestRedisRace: replicas, callers and refusals at once; a caller without rights gets
// nothing at any time.
func TestRedisRace(t *testing.T) {
	onServer(t, func(t *testing.T, shared func() permit.Shared, nodes []*redistest.Server) {
		g, bad := &registry{status: 200}, &registry{status: 403}
		var wg sync.WaitGroup
		var hits atomic.Int64
		for i := range 3 {
			s := shared()
			c, stranger := replica(t, long, g, s), replica(t, long, bad, s)
			wg.Go(func() {
				for n := range 60 {
					r := blobOf(fmt.Sprint("r", n%7))
					if d, err := c.Check(t.Context(), r, "Bearer good", permit.Range); err != nil || !d.Allowed() {
						t.Errorf("%v %v", d, err)
					}
					if d, err := stranger.Check(t.Context(), r, "Bearer bad", permit.Range); err != nil || d.Allowed() {
						t.Errorf("%v %v", d, err)
					}
					if n%10 == i {
						c.Denied(t.Context(), r, "Bearer good", 401)
					}
				}
				hits.Add(c.Stats().SharedHits)
			})
		}
		wg.Wait()
		t.Logf("%d shared hits", hits.Load())
	})
}
