package permit_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestSharedRevocation: a refusal on one replica ends what is shared in its scope at
// once, and what another replica has kept with its TTL.
func TestSharedRevocation(t *testing.T) {
	for _, status := range []int{401, 403, 404, 410} {
		for _, by := range []string{"HEAD", "GET"} {
			if by == "GET" && status == 410 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				cfg := permit.Config{RangeTTL: time.Minute, ManifestTTL: time.Minute, NegativeTTL: -1}
				p, g := newPlace(), &registry{status: 200}
				first, second := replica(t, cfg, g, p), replica(t, cfg, g, p)
				for _, r := range []permit.Resource{blobOf("a"), tagOf("a", "v1"), blobOf("b")} {
					for _, auth := range []permit.Secret{"Bearer a", "Bearer b"} {
						expect(t, first, r, auth, permit.Range, "200")
					}
				}
				expect(t, second, blobOf("a"), "Bearer a", permit.Range, "200 cached")
				if by == "GET" {
					first.Denied(t.Context(), blobOf("a"), "Bearer a", status)
				} else {
					g.set(status)
					expect(t, first, blobOf("a"), "Bearer a", permit.Whole, fmt.Sprint(status))
				}
				g.set(0)
				expect(t, first, blobOf("a"), "Bearer a", permit.Range, "error")
				expect(t, second, tagOf("a", "v1"), "Bearer a", permit.Whole, "error")
				expect(t, second, blobOf("a"), "Bearer b", permit.Range, "200 cached")
				expect(t, second, blobOf("b"), "Bearer a", permit.Range, "200 cached")
				time.Sleep(seconds(58))
				expect(t, second, blobOf("a"), "Bearer a", permit.Range, "200 cached")
				time.Sleep(seconds(2))
				for _, c := range []*permit.Checker{first, second, replica(t, cfg, g, p)} {
					expect(t, c, blobOf("a"), "Bearer a", permit.Range, "error")
				}
				// Who is allowed again is so for all.
				g.set(200)
				expect(t, second, blobOf("a"), "Bearer a", permit.Range, "200")
				g.set(0)
				expect(t, first, blobOf("a"), "Bearer a", permit.Range, "200 cached")
			})
		}
	}
}

// TestSharedOvertaken: an answer that was on its way on one replica when another was
// refused is not shared.
func TestSharedOvertaken(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		synctest.Test(t, func(t *testing.T) {
			p, slow, fast := newPlace(), &registry{status: 200, gate: make(chan struct{})}, &registry{status: 403}
			first, second := replica(t, minute, slow, p), replica(t, minute, fast, p)
			early := start(t.Context(), first, blobOf("a"), "")
			second.Denied(t.Context(), blobOf("a"), "", status)
			close(slow.gate)
			if o := <-early; answer(o.d, o.err) != "200" {
				t.Error(o)
			}
			expect(t, second, blobOf("a"), "", permit.Range, "403")
			if s := first.Stats(); s.SharedKept != 0 || s.SharedErrors != 0 || len(p.kept) != 0 {
				t.Errorf("%+v, %d are shared", s, len(p.kept))
			}
		})
	}
}

// TestSharedForgotten: what was on its way when all was forgotten is not shared.
func TestSharedForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200, gate: make(chan struct{})}
		c := replica(t, minute, g, p)
		asked := start(t.Context(), c, blobOf("a"), "")
		c.Forget(nil)
		close(g.gate)
		if o := <-asked; answer(o.d, o.err) != "200" || len(p.kept) != 0 {
			t.Errorf("%v, %d are shared", o, len(p.kept))
		}
	})
}

// TestSharedOvertakenHere: a refusal while the place is asked makes what it says too old.
func TestSharedOvertakenHere(t *testing.T) {
	for _, how := range []string{"401", "404", "forget"} {
		synctest.Test(t, func(t *testing.T) {
			p, g := newPlace(), &registry{status: 200}
			expect(t, replica(t, minute, g, p), blobOf("a"), "", permit.Range, "200")
			g.set(403)
			c := replica(t, minute, g, p)
			gate := make(chan struct{})
			p.mangle = func(permit.Name, *permit.Grant) { p.mu.Unlock(); <-gate; p.mu.Lock() }
			asked := start(t.Context(), c, blobOf("a"), "")
			var status int
			if n, _ := fmt.Sscan(how, &status); n == 1 {
				c.Denied(t.Context(), blobOf("a"), "", status)
			} else {
				c.Forget(nil)
			}
			close(gate)
			if o := <-asked; answer(o.d, o.err) != "403" {
				t.Errorf("%s: %v", how, o)
			}
		})
	}
}

// TestSharedUntold: a replica that could not tell of a refusal does not itself count
// what was shared before.
func TestSharedUntold(t *testing.T) {
	for _, why := range []error{errAway, errSlow} {
		synctest.Test(t, func(t *testing.T) {
			p, g := newPlace(), &registry{status: 200}
			first, second := replica(t, long, g, p), replica(t, minute, g, p)
			for _, repository := range []string{"a", "b"} {
				expect(t, first, blobOf(repository), "", permit.Range, "200")
			}
			time.Sleep(seconds(10))
			p.set(failing("revoke", why))
			second.Denied(t.Context(), blobOf("a"), "", 403)
			g.set(0)
			expect(t, second, blobOf("a"), "", permit.Range, "error")
			expect(t, second, blobOf("b"), "", permit.Range, "200 cached")
			time.Sleep(seconds(10))
			// What was allowed since, there or here, does.
			g.set(200)
			first.Forget(nil)
			expect(t, first, blobOf("a"), "", permit.Range, "200")
			g.set(0)
			expect(t, second, blobOf("a"), "", permit.Range, "200 cached")
			if s := second.Stats(); s.SharedErrors != 1 || s.SharedHits != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSharedToldLate: that the place heard of a refusal says nothing of a later one.
func TestSharedToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		first, second := replica(t, long, g, p), replica(t, minute, g, p)
		gate := make(chan struct{})
		p.revoked = func() { <-gate }
		go second.Denied(t.Context(), blobOf("a"), "", 403)
		synctest.Wait()
		time.Sleep(seconds(10))
		expect(t, first, blobOf("a"), "", permit.Range, "200") // after the first refusal
		time.Sleep(seconds(10))
		p.set(failing("revoke", errAway))
		second.Denied(t.Context(), blobOf("a"), "", 403)
		close(gate)
		synctest.Wait()
		g.set(0)
		expect(t, second, blobOf("a"), "", permit.Range, "error")
	})
}

// TestSharedDeniedLeft: that the client of a refused GET left keeps nothing alive.
func TestSharedDeniedLeft(t *testing.T) {
	p, g := newPlace(), &registry{status: 200}
	first, second := replica(t, minute, g, p), replica(t, minute, g, p)
	expect(t, first, blobOf("a"), "", permit.Range, "200")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	first.Denied(ctx, blobOf("a"), "", 403)
	g.set(0)
	expect(t, second, blobOf("a"), "", permit.Range, "error")
	if s := first.Stats(); s.SharedErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// TestSharedUntoldMany: of more refusals than are remembered, none is forgotten.
func TestSharedUntoldMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		first, second := replica(t, long, g, p), replica(t, long, g, p)
		for _, repository := range []string{"r0", "a"} {
			expect(t, first, blobOf(repository), "", permit.Range, "200")
		}
		time.Sleep(seconds(10))
		p.set(failing("revoke", errAway))
		for i := range permit.MaxUntold + 1 {
			second.Denied(t.Context(), blobOf(fmt.Sprint("r", i)), "", 403)
		}
		g.set(0)
		expect(t, second, blobOf("r0"), "", permit.Range, "error")
		expect(t, second, blobOf("a"), "", permit.Range, "error") // the price
	})
}

// TestSharedForget: what a Checker forgets does not come back from the place.
func TestSharedForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		first, second := replica(t, long, g, p), replica(t, long, g, p)
		expect(t, first, blobOf("a"), "", permit.Range, "200")
		expect(t, second, blobOf("a"), "", permit.Range, "200 cached")
		time.Sleep(seconds(5))
		if n := second.Forget(func(r permit.Resource) bool { return r.Repository == "a" }); n != 1 {
			t.Errorf("%d forgotten", n)
		}
		g.set(0)
		expect(t, second, blobOf("a"), "", permit.Range, "error")
		expect(t, first, blobOf("a"), "", permit.Range, "200 cached")
		time.Sleep(seconds(5))
		g.set(200)
		expect(t, second, blobOf("a"), "", permit.Range, "200")
		first.Forget(nil)
		g.set(0)
		expect(t, first, blobOf("a"), "", permit.Range, "error") // in the second of its forgetting
	})
}

// TestSharedStale: another replica's answer is one from an earlier time like any other.
func TestSharedStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := permit.Config{Policy: permit.StaleIfError, RangeTTL: time.Minute, StaleFor: 10 * time.Minute}
		p, g := newPlace(), &registry{status: 200}
		first, second, third := replica(t, cfg, g, p), replica(t, cfg, g, p), replica(t, cfg, g, p)
		expect(t, first, blobOf("a"), "", permit.Range, "200")
		time.Sleep(seconds(30))
		expect(t, second, blobOf("a"), "", permit.Range, "200 cached")
		g.set(503)
		time.Sleep(seconds(568))
		expect(t, first, blobOf("a"), "", permit.Range, "200 cached stale")
		expect(t, second, blobOf("a"), "", permit.Range, "200 cached stale")
		expect(t, third, blobOf("a"), "", permit.Range, "503") // it never counted here
		time.Sleep(seconds(2))
		expect(t, first, blobOf("a"), "", permit.Range, "503")
		expect(t, second, blobOf("a"), "", permit.Range, "503")
	})
}

// TestSharedFaults: a place that fails costs what it costs, and no answer.
func TestSharedFaults(t *testing.T) {
	for _, call := range []string{"", "granted", "grant", "revoke"} {
		for _, why := range []error{errAway, errSlow} {
			synctest.Test(t, func(t *testing.T) {
				p, g := newPlace(), &registry{status: 200}
				p.set(failing(call, why))
				c := replica(t, minute, g, p)
				expect(t, c, blobOf("a"), "", permit.Range, "200")
				expect(t, c, blobOf("a"), "", permit.Range, "200 cached")
				g.set(403)
				expect(t, c, blobOf("b"), "", permit.Range, "403")
				want := map[string]int64{"": 3, "granted": 2, "grant": 1, "revoke": 1}[call]
				if s := c.Stats(); s.SharedErrors != want || s.Heads != 2 || s.SharedHits != 0 {
					t.Errorf("%q: %+v", call, s)
				}
				p.set(nil)
				g.set(200)
				expect(t, c, blobOf("c"), "", permit.Range, "200")
				g.set(0)
				expect(t, replica(t, minute, g, p), blobOf("c"), "", permit.Range, "200 cached")
			})
		}
	}
	// A caller that leaves is no error of the place.
	synctest.Test(t, func(t *testing.T) {
		p, g := newPlace(), &registry{status: 200}
		p.set(failing("granted", errSlow))
		c := replica(t, minute, g, p)
		ctx, leave := context.WithCancel(t.Context())
		asked := start(ctx, c, blobOf("a"), "")
		waits := start(t.Context(), c, blobOf("a"), "")
		leave()
		if o := <-asked; o.err != context.Canceled {
			t.Error(o)
		}
		p.set(nil)
		if o := <-waits; answer(o.d, o.err) != "200" {
			t.Error(o)
		}
		if s := c.Stats(); s.Heads != 1 {
			t.Errorf("%+v", s)
		}
	})
}
