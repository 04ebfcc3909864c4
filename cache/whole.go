package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BlobInfo says what is known of a blob in the cache.
type BlobInfo struct {
	Key        digest.Digest // for Remove; the digest itself once it is verified
	Origin     string        // who it came from, "" once it is verified
	Descriptor ocispec.Descriptor
	FetchedAt  time.Time // of the first byte
	LastUsed   time.Time // about a second exact
	VerifiedAt time.Time // when its digest was last checked, zero if never
	Bytes      int64     // disk space in use, with metadata
	Complete   bool      // all bytes are there, as far as that is known without looking at the disk
	Holders    int64     // Contents of it
}

// Blobs returns what the cache has, in no order.
func (c *Cache) Blobs() []BlobInfo {
	all := c.entries()
	list := make([]BlobInfo, 0, len(all))
	for _, e := range all {
		e.mu.Lock()
		if !e.dead {
			b := BlobInfo{
				Key: e.key, Origin: e.origin, Descriptor: e.desc, FetchedAt: e.fetchedAt, VerifiedAt: e.verifiedAt,
				LastUsed: time.Unix(0, e.lastUsed.Load()), Bytes: e.cost.Load(), Complete: e.verified.Load(),
			}
			if o := e.now.Load(); o != nil {
				b.Holders = o.holders.Load()
				b.Complete = o.held.Has(0, e.desc.Size)
			}
			list = append(list, b)
		}
		e.mu.Unlock()
	}
	return list
}

// entries returns all entries there are now.
func (c *Cache) entries() []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*entry, 0, len(c.ranked))
	for _, e := range c.ranked {
		all = append(all, e)
	}
	return all
}

// Scanned reports whether the cache knows all that its folder holds.
func (c *Cache) Scanned() bool { return c.scanned.Load() }

// Remove removes the blob that is kept under key, and reports whether there was
// one. Who holds it goes on to read what there is of it, and its disk space counts
// until then.
func (c *Cache) Remove(key digest.Digest) (bool, error) {
	e := c.lookup(key)
	if e == nil {
		return false, nil
	}
	if err := e.expel(); err != nil {
		return true, fmt.Errorf("removing blob %s: %w", e.desc.Digest, err)
	}
	return true, nil
}

// EvictTo evicts by the policy until at most so many bytes of disk space are used
// or nothing is left that nobody uses.
func (c *Cache) EvictTo(ctx context.Context, bytes int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.evictTo(max(0, bytes))
}

// evictBlobs evicts whole blobs; c.evicting is held. Those that are in use stay:
// nothing would be freed.
func (c *Cache) evictBlobs(goal int64) error {
	type spared struct {
		key  runKey
		size int64
	}
	var inUse []spared
	defer func() {
		c.policyMu.Lock()
		defer c.policyMu.Unlock()
		for _, s := range inUse {
			c.policy.Add(s.key, s.size)
		}
	}()
	for c.used.Load() > goal {
		c.policyMu.Lock()
		key, size, ok := c.policy.Victim()
		c.policyMu.Unlock()
		if !ok {
			return nil
		}
		c.mu.Lock()
		e := c.ranked[key.entry]
		c.mu.Unlock()
		if e == nil {
			continue
		}
		if e.inUse() {
			inUse = append(inUse, spared{key, size})
			continue
		}
		freed := e.cost.Load()
		if err := e.expel(); err != nil {
			inUse = append(inUse, spared{key, size})
			return fmt.Errorf("evicting blob %s: %w", e.desc.Digest, err)
		}
		c.count.evictions.Add(1)
		c.count.bytesEvicted.Add(freed)
	}
	return nil
}

func (e *entry) inUse() bool {
	o := e.now.Load()
	return o != nil && o.holders.Load() > 0
}

// empty reports whether nothing is stored of an entry that is open.
func (e *entry) empty() bool {
	o := e.now.Load()
	return o != nil && o.held.Empty()
}

// expel takes the blob out of the cache and removes its files. Who uses it keeps
// the open file, and its disk space counts until the last of them released it.
func (e *entry) expel() error {
	for {
		if done, err := e.expelAs(nil); done || err != nil {
			return err
		}
		o, err := e.acquire(true)
		if errors.Is(err, errDead) {
			return nil
		}
		if err != nil {
			return err
		}
		o.writing.Lock()
		done, err := e.expelAs(o)
		o.writing.Unlock()
		o.release() // and buries it if nobody else uses it
		if done || err != nil {
			return err
		}
	}
}

// expelAs expels the entry if o is its open state, nil if it is to have none; the
// caller holds o open, and o.writing. It reports whether the entry is gone.
func (e *entry) expelAs(o *opened) (done bool, err error) {
	e.persisting.Lock()
	defer e.persisting.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return true, nil
	}
	if e.now.Load() != o {
		return false, nil
	}
	cost := e.cost.Load()
	if err := e.removeFiles(); err != nil {
		return false, err
	}
	e.unlist()
	if o != nil {
		o.detach(cost)
	}
	return true, nil
}

// detach takes o from its entry, which is expelled and had cost; o.writing,
// e.persisting and e.mu are held.
func (o *opened) detach(cost int64) {
	e, c := o.e, o.e.c
	o.gone = true
	e.now.Store(nil)
	c.mu.Lock()
	delete(c.loaded, e)
	c.mu.Unlock()
	if o.holders.Load() > 0 { // a checkpoint will be done with it in a moment
		o.mourned = cost
		c.used.Add(cost)
	}
	o.evicted.Store(true)
}

// bury closes the file of an expelled blob that nobody uses any more.
func (o *opened) bury() {
	o.buried.Do(func() {
		if o.file != nil {
			o.file.Close()
		}
		o.e.c.used.Add(-o.mourned)
	})
}
