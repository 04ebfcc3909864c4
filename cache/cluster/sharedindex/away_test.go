package sharedindex_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

// calls are all operations that have a bound.
func calls(x *sharedindex.Index) map[string]func(context.Context) error {
	d := fresh()
	k := sharedindex.Key{Digest: d}
	p := sharedindex.Permission{}
	return map[string]func(context.Context) error{
		"Locate":     func(ctx context.Context) error { _, err := x.Locate(ctx, wanted(k, 0, 1)); return err },
		"Renew":      func(ctx context.Context) error { return x.Renew(ctx, k, 1) },
		"Release":    func(ctx context.Context) error { return x.Release(ctx, k, 1, true) },
		"Hold":       func(ctx context.Context) error { return x.Hold(ctx, k) },
		"Drop":       func(ctx context.Context) error { return x.Drop(ctx, "", k) },
		"Claim":      func(ctx context.Context) error { _, _, err := x.Claim(ctx, d); return err },
		"RenewClaim": func(ctx context.Context) error { return x.RenewClaim(ctx, d, 1) },
		"Unclaim":    func(ctx context.Context) error { return x.Unclaim(ctx, d, 1) },
		"Publish": func(ctx context.Context) error {
			return x.Publish(ctx, d, sharedindex.Stored{Generation: 1})
		},
		"Unpublish": func(ctx context.Context) error { return x.Unpublish(ctx, d, 1) },
		"Announce":  func(ctx context.Context) error { return x.Announce(ctx, nil) },
		"Tail":      func(ctx context.Context) error { _, err := x.Tail(ctx); return err },
		"Beat":      func(ctx context.Context) error { return beat(ctx, x, nil) },
		"Replicas":  func(ctx context.Context) error { _, err := x.Replicas(ctx); return err },
		"Granted":   func(ctx context.Context) error { _, err := x.Granted(ctx, p); return err },
		"Grant":     func(ctx context.Context) error { return x.Grant(ctx, p, 1, nil, time.Hour) },
		"Revoke":    func(ctx context.Context) error { return x.Revoke(ctx, p.Scope) },
	}
}

// sent is how many commands were sent, but probes.
func sent(x *sharedindex.Index) (n uint64) {
	for kind, ops := range x.Stats().Ops {
		if kind != "probe" {
			n += ops
		}
	}
	return n
}

// atOnce: every call fails, and without asking Redis.
func atOnce(t *testing.T, x *sharedindex.Index) {
	t.Helper()
	before, away := sent(x), x.Stats().Away
	all := calls(x)
	for name, f := range all {
		if err := f(t.Context()); !errors.Is(err, sharedindex.ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := sent(x); after != before {
		t.Errorf("Redis was asked %d times", after-before)
	}
	if n := x.Stats().Away - away; n != uint64(len(all)) {
		t.Errorf("%d of %d calls count as failed at once", n, len(all))
	}
}

// works: every call is answered, each with what it says of tokens that nobody has.
func works(t *testing.T, x *sharedindex.Index) {
	t.Helper()
	for name, f := range calls(x) {
		if err := f(t.Context()); err != nil && !errors.Is(err, sharedindex.ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func isUp(x *sharedindex.Index) func() error {
	return func() error {
		if s := x.Stats(); !s.Up {
			return errors.New(s.LastError)
		}
		return nil
	}
}

// TestKilled: a server that dies is not asked, and is as soon as it is back.
func TestKilled(t *testing.T) {
	w := standalone(t)
	x := w.replica(t, "a:1")
	works(t, x)
	since := x.Stats().Since
	for range 2 {
		w.servers[0].Kill()
		wantErr(t, x.Hold(t.Context(), sharedindex.Key{Digest: fresh()}), sharedindex.ErrAway)
		s := x.Stats()
		if s.Up || s.LastError == "" || s.Errors == 0 || !s.Since.After(since) {
			t.Fatalf("while it is away: %+v", s)
		}
		atOnce(t, x)
		must(t, w.servers[0].Start(t.Context()))
		atOnce(t, x) // nobody has looked yet
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		eventually(t, isUp(x))
		works(t, x)
		cancel()
		must(t, <-done)
	}
	must(t, x.Close())
	wantErr(t, x.Hold(t.Context(), sharedindex.Key{Digest: fresh()}), sharedindex.ErrAway)
}

// TestNeverThere: an index does not need Redis to begin with.
func TestNeverThere(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		t.Run(fmt.Sprintf("cluster %v", cluster), func(t *testing.T) {
			w := world{addrs: []string{"127.0.0.1:1"}, cluster: cluster}
			x := w.replica(t, "a:1")
			wantErr(t, x.Hold(t.Context(), sharedindex.Key{Digest: fresh()}), sharedindex.ErrAway)
			atOnce(t, x)
		})
	}
}

// TestFrozen: calls return while the server, or all of a cluster, does not answer; when
// it goes on, so do they.
func TestFrozen(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		c := w.config("a:1")
		c.Timeout = 300 * time.Millisecond
		x := open(t, c)
		run(t, x)
		eventually(t, func() error { return beat(t.Context(), x, nil) })
		for _, s := range w.servers {
			must(t, s.Freeze())
		}
		var g errgroup.Group
		for range 20 {
			for name, f := range calls(x) {
				g.Go(func() error {
					if err := f(t.Context()); !errors.Is(err, sharedindex.ErrAway) {
						return fmt.Errorf("%s: %w", name, err)
					}
					return nil
				})
			}
		}
		// It returns: the servers stand still.
		must(t, g.Wait())
		if x.Stats().Up {
			t.Error("the server that stands still is up")
		}
		for _, s := range w.servers {
			must(t, s.Thaw())
		}
		eventually(t, func() error {
			for name, f := range calls(x) {
				if err := f(t.Context()); err != nil && !errors.Is(err, sharedindex.ErrFenced) {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		})
	})
}

// TestNodeKilled: what the other nodes of a cluster have can be asked for.
func TestNodeKilled(t *testing.T) {
	w := cluster(t, "--cluster-require-full-coverage", "no")
	x := w.replica(t, "a:1")
	run(t, x)
	var keys []sharedindex.Key
	for range 60 {
		keys = append(keys, sharedindex.Key{Digest: fresh()})
	}
	must(t, x.Hold(t.Context(), keys...))
	w.servers[1].Kill()
	away := 0
	for range 3 {
		away = 0
		for _, k := range keys {
			err := x.Hold(t.Context(), k)
			switch {
			case errors.Is(err, sharedindex.ErrAway):
				away++
			case err != nil:
				t.Fatal(err)
			}
		}
		// A third of the slots, by chance.
		if away == 0 || away > 45 {
			t.Fatalf("%d of %d keys cannot be asked for", away, len(keys))
		}
	}
	if x.Stats().Up {
		t.Error("a cluster without a node is up")
	}
	if err := x.Hold(t.Context(), keys...); !errors.Is(err, sharedindex.ErrAway) {
		t.Errorf("all at once: %v", err)
	}
	must(t, w.servers[1].Start(t.Context()))
	eventually(t, func() error { return x.Hold(t.Context(), keys...) })
	eventually(t, isUp(x))
}

// TestCallerLeaves: a caller that has no time is told so, and says nothing of Redis.
func TestCallerLeaves(t *testing.T) {
	w := standalone(t)
	x := w.replica(t, "a:1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range calls(x) {
		if err := f(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, w.servers[0].Freeze())
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantErr(t, beat(ctx, x, nil), context.DeadlineExceeded)
	must(t, w.servers[0].Thaw())
	if s := x.Stats(); !s.Up || s.Errors != 0 {
		t.Errorf("after callers that left: %+v", s)
	}
	works(t, x)
}

// TestRestart: tokens grow, and scripts are known again, over a restart that loses all,
// and one that keeps all.
func TestRestart(t *testing.T) {
	for _, keep := range []string{"no", "yes"} {
		t.Run("appendonly "+keep, func(t *testing.T) {
			w := standalone(t, "--appendonly", keep, "--appendfsync", "always")
			x := w.replica(t, "a:1")
			run(t, x)
			k := sharedindex.Key{Digest: fresh()}
			p, token := locate(t, x, wanted(k, 0, 1)), claim(t, x, k.Digest)
			w.servers[0].Kill()
			must(t, w.servers[0].Start(t.Context()))
			var q sharedindex.Place
			eventually(t, func() (err error) { q, err = x.Locate(t.Context(), wanted(k, 0, 1)); return err })
			if keep == "yes" {
				if q.Fetching == nil || q.Fetching.Lease != *p.Lease {
					t.Fatalf("the lease is %+v, not %+v", q, p.Lease)
				}
				noClaim(t, x, k.Digest)
				return
			}
			if q.Lease == nil || q.Lease.Token <= p.Lease.Token {
				t.Fatalf("the lease is %+v after %+v", q.Lease, p.Lease)
			}
			if next := claim(t, x, k.Digest); next <= token {
				t.Fatalf("the claim is %d after %d", next, token)
			}
		})
	}
}

// TestRefused: a server that wants another password, or takes no more, is away; and not
// any more when it does.
func TestRefused(t *testing.T) {
	w := standalone(t)
	x, admin := w.replica(t, "a:1"), w.client(t)
	must(t, admin.ConfigSet(t.Context(), "maxmemory", "1").Err())
	wantErr(t, beat(t.Context(), x, nil), sharedindex.ErrAway)
	atOnce(t, x)
	run(t, x)
	must(t, admin.ConfigSet(t.Context(), "maxmemory", "0").Err())
	eventually(t, isUp(x))
	works(t, x)

	must(t, admin.ConfigSet(t.Context(), "requirepass", "hush").Err())
	y := w.replica(t, "b:1")
	wantErr(t, beat(t.Context(), y, nil), sharedindex.ErrAway)
	atOnce(t, y)
	c := w.config("b:1")
	c.Password = "hush"
	works(t, open(t, c))
}
