package cluster

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/fill"
)

// errFenced says that somebody else goes on with what a lease was for.
var errFenced = errors.New("the lease is another replica's now")

// lease is the right to fetch an extent, and the duty to give others what comes.
type lease struct {
	c       *Cluster
	key     sharedindex.Key
	token   uint64
	extent  fill.Extent
	content *cache.Content // what is fetched is stored in
	over    chan struct{}  // closed when nothing more comes
	once    sync.Once      // closes it

	mu     sync.Mutex
	until  time.Time // when it ends unless it is renewed, by the steady clock
	fenced bool
	ended  bool
	body   io.Closer // of the upstream's answer, while that is read
}

// lead takes note of a lease that was granted at a time.
func (c *Cluster) lead(key sharedindex.Key, granted *sharedindex.Lease, x *cache.Content, at time.Time) *lease {
	l := &lease{
		c: c, key: key, token: granted.Token, extent: fill.Extent{Off: granted.Off, End: granted.End}, content: x,
		over: make(chan struct{}), until: at.Add(c.cfg.LeaseTTL),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leases[key] == nil {
		c.leases[key] = make(map[*lease]struct{})
	}
	c.leases[key][l] = struct{}{}
	return l
}

// end gives the lease up. What was stored in its content others may ask for.
func (l *lease) end(ctx context.Context) {
	c := l.c
	c.mu.Lock()
	delete(c.leases[l.key], l)
	if len(c.leases[l.key]) == 0 {
		delete(c.leases, l.key)
	}
	c.mu.Unlock()
	l.finish()
	held, until := l.content.Extent(l.extent.Off, l.extent.End)
	l.content.Release()
	l.mu.Lock()
	fenced := l.fenced
	l.ended = true
	l.mu.Unlock()
	if fenced {
		return
	}
	some := held || until < l.extent.End
	// An error is counted by the index; the lease ends by itself then.
	_ = c.cfg.Index.Release(context.WithoutCancel(ctx), l.key, l.token, some)
}

// finish says that nothing more comes under the lease.
func (l *lease) finish() { l.once.Do(func() { close(l.over) }) }

// check fails when the lease was lost while nobody looked: a process that was stopped
// knows nothing of the time in between.
func (l *lease) check(ctx context.Context) error {
	l.mu.Lock()
	fenced, over := l.fenced, time.Now().After(l.until)
	l.mu.Unlock()
	switch {
	case fenced:
		return errFenced
	case over:
		return l.renew(ctx)
	}
	return nil
}

// renew asks for more time. If this replica does not reach the index the lease counts on
// for it: if others do and one of them takes it over, the same comes twice.
func (l *lease) renew(ctx context.Context) error {
	at := time.Now()
	err := l.c.cfg.Index.Renew(ctx, l.key, l.token)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended: // in the meantime, by its holder
		return nil
	case errors.Is(err, sharedindex.ErrFenced):
		l.fenced = true
		l.c.count.fenced.Add(1)
		l.finish()
		if l.body != nil {
			l.body.Close() // who reads it may be waiting
		}
		return errFenced
	}
	l.until = at.Add(l.c.cfg.LeaseTTL)
	return nil
}

// reads says which body is read under the lease; nil: none any more.
func (l *lease) reads(body io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.body = body
}

// renew renews leases and claims until ctx ends.
func (c *Cluster) renew(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.LeaseTTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		leases, claims := c.held()
		var g errgroup.Group
		g.SetLimit(renewAtOnce)
		for _, l := range leases {
			g.Go(func() error {
				_ = l.renew(ctx) // who reads under it finds out
				return nil
			})
		}
		for _, w := range claims {
			g.Go(func() error {
				w.renew(ctx)
				return nil
			})
		}
		_ = g.Wait() // it has none
	}
}

// renewAtOnce is how many are renewed at a time: the index may be slow.
const renewAtOnce = 16

// held returns what is to be renewed.
func (c *Cluster) held() (leases []*lease, claims []*claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.leases {
		for l := range of {
			leases = append(leases, l)
		}
	}
	for w := range c.claims {
		claims = append(claims, w)
	}
	return leases, claims
}

// coming returns what is closed when the byte at off is no longer fetched here, nil if
// it is not.
func (c *Cluster) coming(key sharedindex.Key, off int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.leases[key] {
		if l.extent.Off <= off && off < l.extent.End && !l.lost() {
			return l.over
		}
	}
	return nil
}

// lost reports whether the lease is another's now: what comes then is not of an upstream.
func (l *lease) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced
}

// fetched returns the content that something is fetched into, held once more; nil if
// nothing is.
func (c *Cluster) fetched(key sharedindex.Key) *cache.Content {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.leases[key] {
		return l.content.Clone()
	}
	return nil
}
