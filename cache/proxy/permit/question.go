package permit

import (
	"context"
	"errors"
	"time"
)

// question is a check that nothing kept here answers.
type question struct {
	k      id
	r      Resource
	auth   Secret
	class  Class
	flight flight

	// shared says that another replica's answer counts, and name what it is by.
	shared bool
	name   Name
	// asked says that epoch was read: before the HEAD is sent.
	asked bool
	epoch uint64
	// revokes says that the answer ends what is shared in the scope of name.
	revokes bool
}

func (c *Checker) question(k id, r Resource, auth Secret, class Class) *question {
	return &question{
		k: k, r: r, auth: auth, class: class, flight: flight{done: make(chan struct{})},
		shared: c.share != nil && c.ttl(k.item.kind, class) > 0,
	}
}

// ask answers a question for all that wait for its flight. It is asked in the name of
// the caller, and ends with it: then one of those that wait asks another.
func (c *Checker) ask(ctx context.Context, q *question) (Decision, error) {
	if q.shared {
		q.name = c.share.name(&q.k, q.auth)
	}
	a, err := c.fly(ctx, q)
	if a == nil {
		return q.flight.d, err
	}
	switch { // nobody but the caller waits for that
	case q.revokes:
		c.revokeShared(ctx, &q.name.Scope)
	case q.asked && a.d.Allowed():
		c.grant(ctx, q, a)
	}
	return q.flight.d, q.flight.err
}

// fly is ask as far as all wait for it. The answer is the upstream's, and nil if that
// was not asked or the caller has left.
func (c *Checker) fly(ctx context.Context, q *question) (*answer, error) {
	f := &q.flight
	f.gone = true // also if head panics
	defer func() {
		c.mu.Lock()
		if c.flights[q.k] == f {
			delete(c.flights, q.k)
		}
		c.mu.Unlock()
		close(f.done)
	}()
	if q.shared {
		if ok, err := c.granted(ctx, q); ok || err != nil {
			return nil, err
		}
	}
	a := &answer{id: q.k, sent: time.Now()}
	resp, err := c.head(ctx, q.r, q.auth)
	if err == nil && resp == nil {
		err = errors.New("no answer")
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	v := trouble
	if err == nil {
		a.d, v = judge(&q.r, resp)
	}
	a.ends(q.auth)
	q.revokes = (v == denied || v == refused) && c.revocable(q.k.item.kind, a.d.Status)
	if q.revokes && !q.shared {
		q.name = c.share.name(&q.k, q.auth)
	}
	f.d, f.err = c.learn(a, q, v, err)
	f.gone = false
	return a, nil
}

// ends sets when the credential of the answer ends: by the steady clock from here on.
func (a *answer) ends(auth Secret) {
	if end, ok := expiry(auth); ok {
		now := time.Now()
		a.end = now.Add(end.Sub(now))
	}
}

// learn keeps what an answer teaches, and returns what it comes to.
func (c *Checker) learn(a *answer, q *question, v verdict, err error) (Decision, error) {
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
		c.revoke(&a.id, a.d.Status, &q.flight)
	case refused:
		if old != nil {
			c.kept.drop(old)
		}
	case allowed:
	}
	if q.revokes {
		c.share.refused(&q.name.Scope, time.Now(), c.longest())
	}
	if v == refused {
		return a.d, nil
	}
	keep := c.keep(a.id.item.kind, &a.d)
	if keep > 0 && !q.flight.overtaken && a.small() && a.fresh(keep, time.Now()) {
		c.stats.Evicted += int64(c.kept.put(a))
	}
	return a.d, nil
}
