package permit

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// HeadFunc sends HEAD for a resource with a credential, and does not follow
// redirects. Its error is for callers to see: it must not hold secrets.
type HeadFunc = func(ctx context.Context, r Resource, auth Secret) (*http.Response, error)

// Checker asks upstreams. All methods may be called concurrently.
type Checker struct {
	cfg  Config
	head HeadFunc
	salt salt

	trusted atomic.Int64

	mu      sync.Mutex
	kept    *store
	flights map[id]*flight
	stats   Stats
}

// flight is a HEAD under way, sent by one of the checks that wait for it.
type flight struct {
	done chan struct{}

	// overtaken says that a refusal came in while it was under way: what it
	// brings may be older, and is not kept. Guarded by Checker.mu.
	overtaken bool

	// Set before done is closed.
	d    Decision
	err  error
	gone bool // the check that sent it was given up: there is no answer
}

// New returns a Checker; cfg must be valid. See Head for the usual head.
func New(cfg Config, head HeadFunc) *Checker {
	cfg = cfg.withDefaults()
	return &Checker{
		cfg: cfg, head: head, salt: newSalt(),
		kept: newStore(cfg.MaxEntries), flights: make(map[id]*flight),
	}
}

// Policy returns what counts where an upstream does not decide.
func (c *Checker) Policy() Policy { return c.cfg.Policy }

// Check returns what the upstream of r says to auth's owner. The error is head's if
// the upstream did not answer and the policy does not allow an earlier answer, or
// the context's.
func (c *Checker) Check(ctx context.Context, r Resource, auth Secret, class Class) (Decision, error) {
	if c.cfg.Policy == Trusted {
		c.trusted.Add(1)
		d := Decision{Status: http.StatusOK, Trusted: true}
		d.Descriptor.Digest, d.Descriptor.Size = referred(&r), -1
		return d, nil
	}
	k := c.id(&r, auth)
	c.mu.Lock()
	c.stats.Checks++
	for {
		if a := c.valid(&k, class); a != nil {
			d := a.d
			c.mu.Unlock()
			d.Cached = true
			return d, nil
		}
		f := c.flights[k]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[k] = f
			c.stats.Heads++
			c.mu.Unlock()
			return c.ask(ctx, k, f, r, auth)
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return Decision{}, ctx.Err()
		}
		c.mu.Lock()
		if !f.gone {
			c.stats.Joined++
			if f.d.Stale {
				c.stats.Stale++
			}
			c.mu.Unlock()
			return f.d, f.err
		}
	}
}

// valid returns the kept answer that counts for the class, or nil; c.mu is held.
func (c *Checker) valid(k *id, class Class) *answer {
	ttl := c.ttl(k.item.kind, class)
	if ttl <= 0 && c.cfg.NegativeTTL <= 0 {
		return nil
	}
	a := c.kept.find(k)
	if a == nil {
		return nil
	}
	hit := &c.stats.Hits
	if !a.d.Allowed() {
		ttl, hit = c.cfg.NegativeTTL, &c.stats.NegativeHits
	}
	if !a.fresh(ttl, time.Now()) {
		return nil
	}
	*hit++
	return a
}

// fresh reports whether the answer counts if it does for d.
func (a *answer) fresh(d time.Duration, now time.Time) bool {
	return now.Sub(a.sent) < d && (a.end.IsZero() || now.Before(a.end))
}

// ttl returns how long a permission counts.
func (c *Checker) ttl(kind string, class Class) time.Duration {
	switch {
	case kind == "manifests":
		return c.cfg.ManifestTTL
	case class == Range:
		return c.cfg.RangeTTL
	}
	return c.cfg.TTL
}

// keep returns how long an answer may be of use.
func (c *Checker) keep(kind string, d *Decision) time.Duration {
	if !d.Allowed() {
		return c.cfg.NegativeTTL
	}
	keep := max(c.ttl(kind, Whole), c.ttl(kind, Range))
	if c.cfg.Policy == StaleIfError {
		keep = max(keep, c.cfg.StaleFor)
	}
	return keep
}

// ask sends the HEAD of f. It is sent in the name of the caller, and ends with it:
// then one of those that wait sends another.
func (c *Checker) ask(ctx context.Context, k id, f *flight, r Resource, auth Secret) (Decision, error) {
	f.gone = true // also if head panics
	defer func() {
		c.mu.Lock()
		if c.flights[k] == f {
			delete(c.flights, k)
		}
		c.mu.Unlock()
		close(f.done)
	}()
	sent := time.Now()
	resp, err := c.head(ctx, r, auth)
	if err == nil && resp == nil {
		err = errors.New("no answer")
	}
	if err != nil && ctx.Err() != nil {
		return Decision{}, ctx.Err()
	}
	d, v := Decision{}, trouble
	if err == nil {
		d, v = judge(&r, resp)
	}
	a := &answer{id: k, d: d, sent: sent}
	if end, ok := expiry(auth); ok {
		a.end = sent.Add(time.Until(end)) // by the steady clock from here on
	}
	f.d, f.err = c.learn(a, f, v, err)
	f.gone = false
	return f.d, f.err
}

// learn keeps what an answer teaches, and returns what it comes to.
func (c *Checker) learn(a *answer, f *flight, v verdict, err error) (Decision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.count(a.d.Status, v, err)
	old := c.kept.find(&a.id)
	switch v {
	case trouble:
		if c.cfg.Policy == StaleIfError && old != nil && old.d.Allowed() && old.fresh(c.cfg.StaleFor, time.Now()) {
			c.stats.Stale++
			d := old.d
			d.Cached, d.Stale = true, true
			return d, nil
		}
		return a.d, err
	case denied:
		c.revoke(&a.id, a.d.Status, f)
	case refused:
		if old != nil {
			c.kept.drop(old)
		}
		return a.d, nil
	case allowed:
	}
	keep := c.keep(a.id.item.kind, &a.d)
	if keep > 0 && !f.overtaken && a.small() && a.fresh(keep, time.Now()) {
		c.stats.Evicted += int64(c.kept.put(a))
	}
	return a.d, nil
}

// revoke ends what a refusal ends: of a 404, the permission for the resource; of a
// 401 or 403, all that its owner has for the repository. c.mu is held. but is the
// flight that brought the refusal, if one did.
func (c *Checker) revoke(k *id, status int, but *flight) {
	if status != http.StatusNotFound {
		c.stats.Revoked += int64(c.kept.revoke(&k.scope))
	} else if a := c.kept.find(k); a != nil && a.d.Allowed() {
		c.kept.drop(a)
		c.stats.Revoked++
	}
	for other, f := range c.flights {
		if f != but && (other == *k || status != http.StatusNotFound && other.scope == k.scope) {
			f.overtaken = true
			delete(c.flights, other) // who comes now asks anew
		}
	}
}

// Denied tells that the upstream itself, not a host it redirected to, answered
// status to a GET for r by auth's owner. If that is 401, 403 or 404, what was
// allowed before is not any more.
func (c *Checker) Denied(r Resource, auth Secret, status int) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		k := c.id(&r, auth)
		c.mu.Lock()
		c.revoke(&k, status, nil)
		c.mu.Unlock()
	}
}

// Forget drops the answers for which match returns true, nil for all, and returns
// how many. match must not call the Checker.
func (c *Checker) Forget(match func(Resource) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, f := range c.flights {
		if match == nil || match(k.resource()) {
			f.overtaken = true
			delete(c.flights, k)
		}
	}
	return c.kept.forget(match)
}

// Stats returns what was counted.
func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Trusted = c.trusted.Load()
	s.Checks += s.Trusted
	s.Entries = c.kept.len()
	return s
}
