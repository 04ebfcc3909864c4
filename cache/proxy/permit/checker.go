package permit

import (
	"context"
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

	share *sharing // nil: nothing is shared

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
	gone bool // it brought nothing that counts for others: they look again
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
			q := c.question(k, r, auth, class)
			c.flights[k] = &q.flight
			if !q.shared {
				c.stats.Heads++
			}
			c.mu.Unlock()
			return c.ask(ctx, q)
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

// revoke ends what a refusal ends: of a 404, the permission for the resource; of a
// 401 or 403, all that its owner has for the repository. c.mu is held. but is the
// flight that brought the refusal, if one did.
func (c *Checker) revoke(k *id, status int, but *flight) {
	if isOfScope(status) {
		c.stats.Revoked += int64(c.kept.revoke(&k.scope))
	} else if a := c.kept.find(k); a != nil && a.d.Allowed() {
		c.kept.drop(a)
		c.stats.Revoked++
	}
	for other, f := range c.flights {
		if f != but && (other == *k || isOfScope(status) && other.scope == k.scope) {
			f.overtaken = true
			delete(c.flights, other) // who comes now asks anew
		}
	}
}

// Denied tells that the upstream itself, not a host it redirected to, answered
// status to a GET for r by auth's owner. If that is 401, 403 or 404, what was
// allowed before is not any more. It does not end with the context.
func (c *Checker) Denied(ctx context.Context, r Resource, auth Secret, status int) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		k := c.id(&r, auth)
		var n Name
		tell := c.share != nil && c.revocable(k.item.kind, status)
		if tell {
			n = c.share.name(&k, auth)
		}
		c.mu.Lock()
		c.revoke(&k, status, nil)
		if tell {
			c.share.refused(&n.Scope, time.Now(), c.longest())
		}
		c.mu.Unlock()
		if tell {
			c.revokeShared(ctx, &n.Scope)
		}
	}
}

// Forget drops the answers for which match returns true, nil for all, and returns
// how many. match must not call the Checker. Of what is shared, whose names say nothing
// of resources, nothing counts any more for this Checker that is from before; other
// replicas must be told to do the same.
func (c *Checker) Forget(match func(Resource) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, f := range c.flights {
		if match == nil || match(k.resource()) {
			f.overtaken = true
			delete(c.flights, k)
		}
	}
	if c.share != nil {
		c.share.since = time.Now()
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
