package indexcost_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// known is how many blobs the index has when operations on them are measured.
const known = 20_000

// BenchmarkOperation measures each operation on the index: us-redis is the processor
// time of Redis' main thread for one, redis-ops/s what a core that does nothing else
// could do of it, whoever else uses this machine.
func BenchmarkOperation(b *testing.B) {
	ctx := context.Background()
	for _, holders := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("locate/holders=%d", holders), func(b *testing.B) {
			r := newRig(b)
			all := r.replicas(holders + 1)
			for _, x := range all[1:] {
				check(b, hold(x, "", 0, known))
			}
			r.measure(b, func(i int) error {
				_, err := all[0].Locate(ctx, wanted(i%known))
				return err
			})
		})
	}
	fresh := func(name string, f func(r *rig, x *sharedindex.Index) func(i int) error) {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			x := r.replica(0)
			check(b, hold(r.replica(1), "", 0, known))
			r.measure(b, f(r, x))
		})
	}
	fresh("lease+release", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error { return lease(ctx, x, known+i) }
	})
	fresh("renew", func(r *rig, x *sharedindex.Index) func(int) error {
		tokens := make([]uint64, 1000)
		for i := range tokens {
			p, err := x.Locate(ctx, wanted(known+i))
			check(r.t, err)
			tokens[i] = p.Lease.Token
		}
		return func(i int) error {
			i %= len(tokens)
			// A lease that was not renewed for ten seconds has run out, at the same cost.
			if err := x.Renew(ctx, wanted(known+i).Key, tokens[i]); err != nil && !strings.Contains(err.Error(), sharedindex.ErrFenced.Error()) {
				return err
			}
			return nil
		}
	})
	fresh("hold", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error { return x.Hold(ctx, blob(i%(2*known))) }
	})
	fresh("drop", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error { return x.Drop(ctx, "10.20.0.11:7000", blob(i%known)) }
	})
	fresh("claim+publish", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error {
			d := blob(known + i).Digest
			token, _, err := x.Claim(ctx, d)
			if err != nil {
				return err
			}
			return x.Publish(ctx, d, sharedindex.Stored{Generation: token, Size: size})
		}
	})
	fresh("look", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error { _, err := x.Look(ctx, blob(i%known)); return err }
	})
	fresh("granted+grant", func(_ *rig, x *sharedindex.Index) func(int) error {
		return func(i int) error { return allow(ctx, x, i/20, i) }
	})
	fresh("granted", func(r *rig, x *sharedindex.Index) func(int) error {
		check(r.t, allow(ctx, x, 0, 0))
		return func(int) error { _, err := x.Granted(ctx, permission(0, 0)); return err }
	})
}

// BenchmarkReplicas measures what grows with the number of replicas: a beat looks at all
// others, so does a page, and an announcement goes to each.
func BenchmarkReplicas(b *testing.B) {
	ctx := context.Background()
	status := []byte(strings.Repeat("x", 1<<10))
	b.Run("beat/n=100/status=16KiB", func(b *testing.B) {
		large := []byte(strings.Repeat("x", sharedindex.MaxStatus))
		r := newRig(b)
		all := r.beating(100, large)
		r.measure(b, func(i int) error { return beat(ctx, all[i%100], large) })
	})
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("beat/n=%d", n), func(b *testing.B) {
			r := newRig(b)
			all := r.beating(n, status)
			r.measure(b, func(i int) error { return beat(ctx, all[i%n], status) })
		})
		b.Run(fmt.Sprintf("page/n=%d", n), func(b *testing.B) {
			r := newRig(b)
			all := r.beating(n, status)
			r.measure(b, func(i int) error { _, err := all[i%n].Replicas(ctx); return err })
		})
		if n > 100 {
			continue // which are a connection each, and a goroutine here
		}
		b.Run(fmt.Sprintf("announce/n=%d", n), func(b *testing.B) {
			r := newRig(b)
			all := r.replicas(n)
			var heard atomic.Int64
			follow, stop := context.WithCancel(ctx)
			var g errgroup.Group
			for _, x := range all {
				g.Go(func() error { return x.Follow(follow, "", func(sharedindex.Announcement) { heard.Add(1) }) })
			}
			for r.info("clients", "blocked_clients") < float64(n) {
				time.Sleep(10 * time.Millisecond)
			}
			r.measure(b, func(i int) error { return all[i%n].Announce(ctx, status[:100]) })
			stop()
			if err := g.Wait(); err != nil && follow.Err() == nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(heard.Load())/float64(b.N), "heard/op")
		})
	}
}

// beating returns replicas that said once that they are there. They are gone after a
// quarter of a minute that they say nothing, so a benchmark of them is short.
func (r *rig) beating(n int, status []byte) []*sharedindex.Index {
	all := r.replicas(n)
	check(r.t, each(n, func(ctx context.Context, i int) error { return beat(ctx, all[i], status) }))
	return all
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// measure runs f b.N times, several at a time, each with a number of its own.
func (r *rig) measure(b *testing.B, f func(i int) error) {
	b.Helper()
	var next atomic.Int64
	b.SetParallelism(max(1, at/runtime.GOMAXPROCS(0)))
	before := r.processor()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := f(int(next.Add(1) - 1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	used := r.processor() - before
	b.ReportMetric(used/float64(b.N)*1e6, "us-redis")
	b.ReportMetric(float64(b.N)/used, "redis-ops/s")
}

func beat(ctx context.Context, x *sharedindex.Index, status []byte) error {
	_, _, err := x.Beat(ctx, status)
	return err
}
