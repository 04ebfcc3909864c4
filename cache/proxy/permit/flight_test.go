package permit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// outcome is what a check that ran beside others came to.
type outcome struct {
	d   permit.Decision
	err error
}

// start runs a check beside the test, which is in a synctest bubble.
func start(ctx context.Context, c *permit.Checker, r permit.Resource, auth permit.Secret) <-chan outcome {
	ch := make(chan outcome, 1)
	go func() {
		d, err := c.Check(ctx, r, auth, permit.Whole)
		ch <- outcome{d, err}
	}()
	synctest.Wait()
	return ch
}

// TestCollapsed: equal checks at the same time are one HEAD, and no others are.
func TestCollapsed(t *testing.T) {
	for _, status := range []int{200, 307, 401, 404, 429, 503, 0} {
		synctest.Test(t, func(t *testing.T) {
			g := &registry{gate: make(chan struct{})}
			g.set(status, "Location", "https://x/")
			c := permit.New(permit.Config{NegativeTTL: -1}, g.head)
			var equal, others []<-chan outcome
			for range 50 {
				equal = append(equal, start(t.Context(), c, blobOf("a"), "Bearer a"))
			}
			others = append(others,
				start(t.Context(), c, blobOf("a"), "Bearer b"), start(t.Context(), c, blobOf("a"), ""),
				start(t.Context(), c, blobOf("b"), "Bearer a"))
			if n := g.asked(); n != 4 {
				t.Errorf("asked %d times, want 4", n)
			}
			close(g.gate)
			want := map[int]string{307: "200", 0: "error"}[status]
			if want == "" {
				want = fmt.Sprint(status)
			}
			for _, ch := range append(equal, others...) {
				if o := <-ch; answer(o.d, o.err) != want {
					t.Errorf("%s (%v), want %s", answer(o.d, o.err), o.err, want)
				}
			}
			if s := c.Stats(); s.Joined != 49 || s.Heads != 4 || s.Checks != 53 {
				t.Errorf("%+v", s)
			}
			// It was one at the time and no more.
			expect(t, c, blobOf("a"), "Bearer a", permit.Whole, want)
			if n := g.asked(); n != 5 {
				t.Errorf("asked %d times, want 5", n)
			}
		})
	}
}

// TestLeaderLeaves: who asks for all may go; who waits may go; the rest have their
// answer.
func TestLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &registry{gate: make(chan struct{}), status: 200}
		c := permit.New(permit.Config{}, g.head)
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		leader, waiter := start(first, c, blobOf("a"), ""), start(second, c, blobOf("a"), "")
		var rest []<-chan outcome
		for range 10 {
			rest = append(rest, start(t.Context(), c, blobOf("a"), ""))
		}
		leaveSecond()
		if o := <-waiter; !errors.Is(o.err, context.Canceled) {
			t.Errorf("who waited and left: %v", o)
		}
		if n := g.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		leaveFirst()
		if o := <-leader; !errors.Is(o.err, context.Canceled) {
			t.Errorf("who asked and left: %v", o)
		}
		synctest.Wait()
		if n := g.asked(); n != 2 {
			t.Errorf("asked %d times, want one more by one of the rest", n)
		}
		close(g.gate)
		for _, ch := range rest {
			if o := <-ch; answer(o.d, o.err) != "200" && answer(o.d, o.err) != "200 cached" {
				t.Errorf("%v", o)
			}
		}
		if n := g.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestPanic: a head that panics leaves nobody waiting.
func TestPanic(t *testing.T) {
	fail := true
	c := permit.New(permit.Config{}, func(context.Context, permit.Resource, permit.Secret) (*http.Response, error) {
		if fail {
			fail = false
			panic(http.ErrAbortHandler)
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	func() {
		defer func() { _ = recover() }()
		c.Check(t.Context(), blobOf("a"), "", permit.Whole)
		t.Error("no panic")
	}()
	expect(t, c, blobOf("a"), "", permit.Whole, "200")
}

// TestOvertaken: an answer that was on its way when a refusal came is not kept, and
// who asks after the refusal does not get it.
func TestOvertaken(t *testing.T) {
	for _, how := range []string{"401", "403", "404", "forget"} {
		synctest.Test(t, func(t *testing.T) {
			g := &registry{gate: make(chan struct{}), status: 200}
			c := permit.New(long, g.head)
			early := start(t.Context(), c, blobOf("a"), "")
			slow := g.gate
			switch how {
			case "forget":
				c.Forget(nil)
			default:
				var status int
				fmt.Sscan(how, &status)
				c.Denied(t.Context(), blobOf("a"), "", status)
			}
			g.mu.Lock()
			g.gate = nil
			g.mu.Unlock()
			g.set(403)
			expect(t, c, blobOf("a"), "", permit.Range, "403")
			close(slow)
			if o := <-early; answer(o.d, o.err) != "200" {
				t.Errorf("who asked before: %v", o)
			}
			expect(t, c, blobOf("a"), "", permit.Range, "403 cached")
		})
	}
}

// TestStaleForAll: all that wait for an answer that does not come get the earlier.
func TestStaleForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &registry{status: 200}
		c := permit.New(permit.Config{Policy: permit.StaleIfError}, g.head)
		expect(t, c, blobOf("a"), "", permit.Whole, "200")
		g.set(0)
		g.gate = make(chan struct{})
		a, b := start(t.Context(), c, blobOf("a"), ""), start(t.Context(), c, blobOf("a"), "")
		stranger := start(t.Context(), c, blobOf("a"), "Bearer x")
		close(g.gate)
		for _, ch := range []<-chan outcome{a, b} {
			if o := <-ch; answer(o.d, o.err) != "200 cached stale" {
				t.Errorf("%v", o)
			}
		}
		if o := <-stranger; !errors.Is(o.err, errUnreached) {
			t.Errorf("%v", o)
		}
		if s := c.Stats(); s.Stale != 2 || s.Unreached != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRace: everything at once, for the race detector; a caller without rights gets
// nothing at any time.
func TestRace(t *testing.T) {
	c := permit.New(permit.Config{RangeTTL: seconds(1), TTL: seconds(1), MaxEntries: 8, Policy: permit.StaleIfError},
		func(_ context.Context, _ permit.Resource, auth permit.Secret) (*http.Response, error) {
			status := 200
			if auth == "Bearer bad" {
				status = 403
			}
			return &http.Response{StatusCode: status, Body: http.NoBody}, nil
		})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				r := blobOf(fmt.Sprint("r", (n*7+i)%12))
				auth, want := permit.Secret("Bearer good"), 200
				if n%3 == 0 {
					auth, want = "Bearer bad", 403
				}
				d, err := c.Check(t.Context(), r, auth, permit.Class(n%2))
				if err != nil || d.Status != want {
					t.Errorf("%q: %v %v", string(auth), d, err)
				}
				switch n % 50 {
				case 0:
					c.Denied(t.Context(), r, "Bearer good", 401)
				case 1:
					c.Forget(func(permit.Resource) bool { return n%100 == 1 })
				case 2:
					c.Stats()
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Entries > 8 || s.Evicted == 0 {
		t.Errorf("%+v", s)
	}
}
