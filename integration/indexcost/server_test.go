package indexcost_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
)

// rig is a Redis, and replicas that know it.
type rig struct {
	t      testing.TB
	server *redistest.Server
	client *redis.Client
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s := redistest.Start(t)
	c := s.Client()
	t.Cleanup(func() { c.Close() })
	return &rig{t, s, c}
}

// replica returns a replica's view of the index.
func (r *rig) replica(i int) *sharedindex.Index {
	r.t.Helper()
	x, err := sharedindex.New(sharedindex.Config{
		Addrs: []string{r.server.Addr()}, Replica: fmt.Sprintf("10.20.%d.%d:7000", i/200, 10+i%200),
		Timeout: patience,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { x.Close() })
	return x
}

func (r *rig) replicas(n int) []*sharedindex.Index {
	var out []*sharedindex.Index
	for i := range n {
		out = append(out, r.replica(i))
	}
	return out
}

// info returns a number of Redis' INFO.
func (r *rig) info(section, name string) float64 {
	r.t.Helper()
	text, err := r.client.Info(context.Background(), section).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
	r.t.Fatalf("Redis does not tell %s", name)
	return 0
}

// processor returns the seconds of processor time that Redis' main thread has had.
func (r *rig) processor() float64 {
	r.t.Helper()
	return r.info("cpu", "used_cpu_user_main_thread") + r.info("cpu", "used_cpu_sys_main_thread")
}

// blob is the i-th key of verified content.
func blob(i int) sharedindex.Key {
	return sharedindex.Key{Digest: digest.NewDigestFromBytes(digest.SHA256, sum(i))}
}

func sum(i int) []byte {
	s := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
	return s[:]
}

// at is how many calls are under way at a time.
const at = 64

// each calls f with 0 to n-1, several at a time, and returns the first error.
func each(n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(context.Background())
	for w := range at {
		g.Go(func() error {
			for i := w; i < n; i += at {
				if err := f(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// hold says that a replica has the blobs from one to another, of an origin or verified.
func hold(x *sharedindex.Index, origin string, from, to int) error {
	const batch = 256
	for ; from < to; from += batch {
		var keys []sharedindex.Key
		for i := from; i < min(from+batch, to); i++ {
			k := blob(i)
			k.Origin = origin
			keys = append(keys, k)
		}
		if err := x.Hold(context.Background(), keys...); err != nil {
			return err
		}
	}
	return nil
}
