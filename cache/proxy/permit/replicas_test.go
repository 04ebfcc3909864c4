package permit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// world is an upstream whose mind changes, and what it said when.
type world struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	allowed bool
	last    time.Time            // when it was last of the mind to allow, if it is not now
	refused map[string]time.Time // what a replica heard, and when that was the upstream's mind
}

func (w *world) sleep(most time.Duration) {
	w.mu.Lock()
	d := time.Duration(w.rnd.Int64N(int64(most)))
	w.mu.Unlock()
	time.Sleep(d)
}

// head answers as it is at some time between that it is asked and that it is heard. A
// refusal says when that was.
func (w *world) head(context.Context, permit.Resource, permit.Secret) (*http.Response, error) {
	w.sleep(2 * time.Second)
	w.mu.Lock()
	status, header := 200, http.Header{}
	if !w.allowed {
		status = []int{401, 403, 404}[w.rnd.IntN(3)]
		header.Set("WWW-Authenticate", time.Now().Format(time.RFC3339Nano))
	}
	w.mu.Unlock()
	w.sleep(2 * time.Second)
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody}, nil
}

// check is one of replica c, whose name is who.
func (w *world) check(t *testing.T, c *permit.Checker, who string, r permit.Resource, ttl time.Duration) {
	w.mu.Lock()
	class := permit.Class(w.rnd.IntN(2))
	who += r.Repository
	refused := w.refused[who]
	w.mu.Unlock()
	began := time.Now()
	d, err := c.Check(t.Context(), r, "", class)
	if err != nil {
		t.Error(err)
		return
	}
	if !d.Allowed() {
		at, err := time.Parse(time.RFC3339Nano, d.Header.Get("WWW-Authenticate"))
		if err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if at.After(w.refused[who]) {
			w.refused[who] = at
		}
		return
	}
	if !w.allowedSince(began.Add(-ttl)) {
		t.Errorf("%s allows by an answer older than the TTL", who)
	}
	if !w.allowedSince(refused) {
		t.Errorf("%s allows by an answer from before a refusal that it heard", who)
	}
}

func (w *world) turn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.allowed {
		w.last = time.Now()
	}
	w.allowed = !w.allowed
}

// allowedSince reports whether there was a time since then when it allowed.
func (w *world) allowedSince(then time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allowed || w.last.After(then)
}

// TestReplicas: three replicas, an upstream that changes its mind, all of them slow and
// the place failing now and then. Nobody is allowed by an answer that is older than the
// TTL, nor, on the replica that heard a refusal, by one from before that.
func TestReplicas(t *testing.T) {
	const ttl = 20 * time.Second
	var hits, kept, failed int64
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), allowed: true, refused: make(map[string]time.Time)}
			p := newPlace()
			p.set(func(call string) error {
				w.sleep(400 * time.Millisecond)
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.rnd.IntN(10) == 0 {
					return []error{errAway, errSlow}[w.rnd.IntN(2)]
				}
				return nil
			})
			cfg := permit.Config{RangeTTL: ttl, TTL: ttl / 2, NegativeTTL: -1}
			var replicas []*permit.Checker
			for range 3 {
				c := permit.New(cfg, w.head)
				if err := c.Share(p, secret); err != nil {
					t.Fatal(err)
				}
				replicas = append(replicas, c)
			}
			end := time.Now().Add(10 * time.Minute)
			var wg sync.WaitGroup
			wg.Go(func() {
				for time.Now().Before(end) {
					w.sleep(time.Minute)
					w.turn()
				}
			})
			for n := range 12 {
				wg.Go(func() {
					for time.Now().Before(end) {
						w.sleep(8 * time.Second)
						w.check(t, replicas[n%3], fmt.Sprint(seed, n%3), blobOf(fmt.Sprint("r", n/3%2)), ttl)
					}
				})
			}
			wg.Wait()
			for _, c := range replicas {
				s := c.Stats()
				hits, kept, failed = hits+s.SharedHits, kept+s.SharedKept, failed+s.SharedErrors
			}
		})
	}
	if hits < 50 || kept < 50 || failed < 50 {
		t.Errorf("%d hits, %d kept, %d failed: nothing was tested", hits, kept, failed)
	}
}
