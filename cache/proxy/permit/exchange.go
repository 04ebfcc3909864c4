package permit

import (
	"context"
	"net/http"
	"time"
)

// life returns how long an answer about a resource of the kind counts for those who may
// use another's; 0 if nobody may.
func (c *Checker) life(kind string) time.Duration {
	return min(max(c.ttl(kind, Whole), c.ttl(kind, Range), 0), maxLife)
}

// longest returns the longest life there is.
func (c *Checker) longest() time.Duration { return max(c.life("blobs"), c.life("manifests")) }

// revocable reports whether something may be shared that a refusal ends. One that is of
// a single resource, such as 404, says nothing if its kind is not shared.
func (c *Checker) revocable(kind string, status int) bool {
	switch {
	case c.share == nil:
		return false
	case isOfScope(status):
		return c.longest() > 0
	}
	return c.life(kind) > 0
}

// granted looks whether another replica's answer counts for q, and if so, keeps it.
// Else a HEAD is to be sent, which it has counted. The error is that of ctx.
func (c *Checker) granted(ctx context.Context, q *question) (bool, error) {
	now := time.Now()
	bounded, cancel := context.WithTimeout(ctx, sharedWait)
	g, err := c.share.with.Granted(bounded, q.name)
	cancel()
	if err != nil && ctx.Err() != nil {
		return false, ctx.Err()
	}
	var a *answer
	ok := true
	if err == nil && len(g.Value) > 0 {
		a, ok = c.share.read(q, &g, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q.asked, q.epoch = err == nil, g.Epoch
	if err != nil {
		c.stats.SharedErrors++
	}
	if !ok {
		c.stats.SharedInvalid++
	}
	if a == nil || q.flight.overtaken || !c.share.counts(&q.name.Scope, a.sent) ||
		!a.fresh(c.ttl(q.k.item.kind, q.class), time.Now()) {
		c.stats.Heads++
		return false, nil
	}
	c.stats.SharedHits++
	q.flight.d = a.d
	q.flight.d.Cached = true
	if a.small() {
		c.stats.Evicted += int64(c.kept.put(a))
	}
	return true, nil
}

// read makes an answer of what was granted: nil if it is over, and not ok if it was
// not granted so. now is from before the place was asked, so that the answer is not
// younger than it seems.
func (s *sharing) read(q *question, g *Grant, now time.Time) (a *answer, ok bool) {
	v, err := s.open(&q.name, g.Epoch, g.Value)
	if d := referred(&q.r); err != nil || d != "" && v.desc.Digest != d {
		return nil, false
	}
	// How long it lasts is the place's to say; that it does not last longer than
	// it was meant to, the value's. Only who tampers with the place makes the
	// clocks of replicas matter.
	left := min(g.Left, v.expires.Sub(now), v.life)
	if left <= 0 {
		return nil, true
	}
	a = &answer{id: q.k, sent: now.Add(left - v.life)}
	a.d.Status, a.d.Descriptor = http.StatusOK, v.desc
	a.ends(q.auth)
	return a, true
}

// grant shares an answer to q.
func (c *Checker) grant(ctx context.Context, q *question, a *answer) {
	c.mu.Lock()
	overtaken := q.flight.overtaken
	c.mu.Unlock()
	v := value{life: c.life(q.k.item.kind), desc: a.d.Descriptor}
	if !a.end.IsZero() {
		v.life = min(v.life, a.end.Sub(a.sent))
	}
	v.expires = a.sent.Add(v.life)
	ttl := v.life - time.Since(a.sent) - sharedWait
	if overtaken || !a.small() || ttl < time.Millisecond {
		return
	}
	b, err := c.share.seal(&q.name, q.epoch, &v)
	if err != nil {
		return // an answer so odd is not shared
	}
	bounded, cancel := context.WithTimeout(ctx, sharedWait)
	defer cancel()
	kept, err := c.share.with.Grant(bounded, q.name, q.epoch, b, ttl)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && kept:
		c.stats.SharedKept++
	case err != nil && ctx.Err() == nil:
		c.stats.SharedErrors++
	}
}

// revokeShared tells other replicas of a refusal that sharing.refused remembers.
func (c *Checker) revokeShared(ctx context.Context, scope *[32]byte) {
	c.mu.Lock()
	told := c.share.untold[*scope]
	c.mu.Unlock()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), sharedWait)
	defer cancel()
	err := c.share.with.Revoke(bounded, *scope)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.stats.SharedErrors++
	case c.share.untold[*scope].Equal(told):
		delete(c.share.untold, *scope)
	}
}
