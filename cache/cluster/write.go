package cluster

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// claim is the right to write a blob to the tier.
type claim struct {
	c      *Cluster
	digest digest.Digest
	token  uint64
	cancel context.CancelCauseFunc // ends the writing
}

// renew asks for more time. Who has lost the claim ends to write; what it wrote has a
// name that nobody else's has.
func (w *claim) renew(ctx context.Context) {
	if errors.Is(w.c.cfg.Index.RenewClaim(ctx, w.digest, w.token), sharedindex.ErrFenced) {
		w.c.count.fenced.Add(1)
		w.cancel(errFenced)
	}
}

// job is a blob that is to be told of and written back.
type job struct {
	digest digest.Digest
	failed int // times in a row
}

const (
	// tryWrites is how often it is tried to write a blob to the tier.
	tryWrites = 6
	// writeAgain is waited after it failed first, and twice as long each other time.
	writeAgain = 10 * time.Second
)

// write tells the others of what was verified, and writes it back, until ctx ends.
func (c *Cluster) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-c.queue:
			err := c.share(ctx, j)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if j.failed++; j.failed < tryWrites {
				c.later(j, writeAgain<<(j.failed-1))
				continue
			}
			c.count.unwritten.Add(1)
			c.failed("writing "+j.digest.String()+" to the shared tier", err)
		}
	}
}

// later has j done about then.
func (c *Cluster) later(j job, after time.Duration) {
	time.AfterFunc(after+rand.N(after), func() {
		select {
		case c.queue <- j:
		default:
			c.count.dropped.Add(1)
		}
	})
}

// share tells that a blob is here, and writes it to the tier, unless it is there or
// somebody is at it.
func (c *Cluster) share(ctx context.Context, j job) error {
	if c.cfg.Index != nil && j.failed == 0 {
		_ = c.cfg.Index.Hold(ctx, sharedindex.Key{Digest: j.digest}) // counted by the index
	}
	if c.cfg.Tier == nil {
		return nil
	}
	x, ok := c.cache.Find("", j.digest)
	if !ok {
		return nil // it is gone already
	}
	defer x.Release()
	if c.cfg.Index != nil {
		token, claimed, err := c.cfg.Index.Claim(ctx, j.digest)
		switch {
		case err == nil && claimed:
			return c.writeClaimed(ctx, x, token)
		case err == nil:
			// Who has the claim may not come to an end.
			place, err := c.cfg.Index.Look(ctx, sharedindex.Key{Digest: j.digest})
			if err == nil && place.Stored == nil {
				c.later(j, c.cfg.LeaseTTL)
			}
			return nil
		}
	}
	// Nobody says who is to write it: it is written if it is not there.
	if _, found, err := c.cfg.Tier.Find(ctx, j.digest); found || err != nil {
		return err
	}
	generation := uint64(time.Now().UnixMicro())
	err := c.put(ctx, x, generation)
	if err == nil && !c.has(j.digest) { // it was purged in the meantime
		return c.cfg.Tier.Remove(context.WithoutCancel(ctx), j.digest, generation)
	}
	return err
}

// writeClaimed writes x under a claim, and says where it is.
func (c *Cluster) writeClaimed(ctx context.Context, x *cache.Content, token uint64) error {
	d := x.Descriptor().Digest
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &claim{c: c, digest: d, token: token, cancel: cancel}
	c.mu.Lock()
	c.claims[w] = struct{}{}
	c.mu.Unlock()
	err := c.putUnlessThere(within, x, token)
	c.mu.Lock()
	delete(c.claims, w)
	c.mu.Unlock()
	after := context.WithoutCancel(ctx)
	switch {
	case errors.Is(context.Cause(within), errFenced):
		err = errFenced
	case err == nil && !c.has(d):
		err = errPurged
	case err == nil:
		err = c.cfg.Index.Publish(after, d, sharedindex.Stored{Generation: token, Size: x.Descriptor().Size})
		if err == nil || errors.Is(err, sharedindex.ErrAway) { // then it is found by the list of the tier
			return nil
		}
	case errors.Is(err, errThere):
		return nil
	}
	// Somebody else has written it since, or it was written and the answer was lost.
	gone := c.takeBack(after, d, token)
	if errors.Is(err, errFenced) || errors.Is(err, sharedindex.ErrFenced) {
		return gone
	}
	_ = c.cfg.Index.Unclaim(after, d, token) // it ends by itself
	if errors.Is(err, errPurged) {
		return gone
	}
	return err
}

var (
	// errThere says that the tier has a blob that the index had forgotten.
	errThere = errors.New("it is there")
	// errPurged says that a blob was purged while it was written.
	errPurged = errors.New("it was purged in the meantime")
)

// takeBack removes what was written under a claim that is lost or led to nothing, unless
// who had the claim next has found it and told the index.
func (c *Cluster) takeBack(ctx context.Context, d digest.Digest, token uint64) error {
	place, err := c.cfg.Index.Look(ctx, sharedindex.Key{Digest: d})
	if err != nil || place.Stored != nil && place.Stored.Generation == token {
		return nil // the sweep finds it, if it is of no use
	}
	return c.cfg.Tier.Remove(ctx, d, token)
}

// settled is how old an object must be to be taken for one that its writer is done with.
// Generations are times.
const settled = 10 * time.Minute

// putUnlessThere writes x under a claim, unless the tier has it by its list: then the
// index is told.
func (c *Cluster) putUnlessThere(ctx context.Context, x *cache.Content, token uint64) error {
	d := x.Descriptor().Digest
	o, found, err := c.cfg.Tier.Find(ctx, d)
	if err != nil {
		return err
	}
	if !found || time.Since(time.UnixMicro(int64(o.Generation))) < settled {
		return c.put(ctx, x, token)
	}
	err = c.cfg.Index.PublishFound(context.WithoutCancel(ctx), d, token, sharedindex.Stored{Generation: o.Generation, Size: o.Size})
	if err != nil {
		return err
	}
	return errThere
}

// has reports whether a blob is in the cache, verified. While it is held it is not
// evicted, but may be purged.
func (c *Cluster) has(d digest.Digest) bool {
	x, ok := c.cache.Find("", d)
	if ok {
		x.Release()
	}
	return ok
}

// put writes x as a generation.
func (c *Cluster) put(ctx context.Context, x *cache.Content, generation uint64) error {
	desc := x.Descriptor()
	err := c.cfg.Tier.Put(ctx, desc.Digest, tier.Object{Generation: generation, Size: desc.Size}, unread{x})
	if err == nil {
		c.count.written.Add(1)
		c.count.writtenBytes.Add(desc.Size)
	}
	return err
}

// unread is content that is read without that being a use of it.
type unread struct{ x *cache.Content }

// ReadAt implements io.ReaderAt.
func (u unread) ReadAt(p []byte, off int64) (int, error) { return u.x.ReadNew(p, off) }
