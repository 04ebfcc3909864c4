package cache

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// evictionBatch bounds the runs given up between two looks at the account.
// Runs of one blob in a batch share the cost of making its map durable.
const evictionBatch = 64

// reserve accounts for n bytes about to be stored, making room if need be, and
// reports whether they may be stored.
func (c *Cache) reserve(n int64) bool {
	limit := c.cfg.MaxBytes
	if limit > 0 && n > limit || !c.space.take(n) {
		return false
	}
	if c.used.Add(n) <= limit || limit == 0 {
		return true
	}
	// A little more than needed, because each eviction waits for the disk.
	slack := min(limit/64, 16<<20) / presence.Block * presence.Block
	if err := c.evictTo(max(n, limit-slack)); err != nil {
		c.failed(err)
	}
	if c.used.Load() > limit {
		c.used.Add(-n)
		return false
	}
	return true
}

// evictTo gives up content until at most goal bytes are used or nothing is
// left that can be given up.
func (c *Cache) evictTo(goal int64) error {
	c.evicting.Lock()
	defer c.evicting.Unlock()
	if c.cfg.WholeBlobs {
		return c.evictBlobs(goal)
	}
	for c.used.Load() > goal {
		if c.cold != nil {
			if err := c.evictCold(goal); err != nil {
				return fmt.Errorf("evicting from cache: %w", err)
			}
			continue
		}
		batch, more := c.victims(goal)
		if !more {
			return nil
		}
		for _, v := range batch {
			if err := v.evict(); err != nil {
				return fmt.Errorf("evicting from cache: %w", err)
			}
		}
	}
	return nil
}

// victim is runs of one blob to be evicted together.
type victim struct {
	e    *entry
	runs []int
}

// victims asks the policy for enough runs to come down to goal. A whole blob
// among them ends the list and becomes c.cold. more is false when the policy
// has nothing left.
func (c *Cache) victims(goal int64) (batch []victim, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	excess := c.used.Load() - goal
	for n := 0; n < evictionBatch && excess > 0; n++ {
		key, size, ok := c.policy.Victim()
		if !ok {
			break
		}
		more = true
		e := c.ranked[key.entry]
		if e == nil {
			continue
		}
		if key.run == allRuns {
			c.cold = e
			break
		}
		excess -= size
		i := slices.IndexFunc(batch, func(v victim) bool { return v.e == e })
		if i < 0 {
			i = len(batch)
			batch = append(batch, victim{e: e})
		}
		batch[i].runs = append(batch[i].runs, int(key.run))
	}
	return batch, more
}

// evict evicts the runs of v. After an error the policy has them again.
func (v victim) evict() error {
	o, err := v.e.acquire(true)
	if errors.Is(err, errDead) {
		return nil
	}
	if err == nil {
		defer o.release()
		err = o.evict(v.runs)
		if errors.Is(err, errForget) {
			o.lose()
			return nil
		}
	}
	if err != nil {
		v.e.relist(v.runs)
	}
	return err
}

// relist puts runs back into the policy that could not be evicted.
func (e *entry) relist(runs []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.now.Load()
	e.c.policyMu.Lock()
	defer e.c.policyMu.Unlock()
	for _, i := range runs {
		n := int64(presence.Run) // a guess while the map can't be read
		if o != nil {
			n = o.held.Ranges(i).Content()
		}
		e.c.policy.Add(runKey{e.rank, int32(i)}, n)
	}
}

// evictCold evicts runs of c.cold, a blob not read since the start, in the
// order of their offsets: there is nothing better to go by.
func (c *Cache) evictCold(goal int64) error {
	e := c.cold
	o, err := e.acquire(true)
	if errors.Is(err, errDead) {
		c.cold = nil
		return nil
	}
	if err != nil {
		c.cold = nil
		c.policyMu.Lock()
		c.policy.Add(runKey{e.rank, allRuns}, e.cost.Load())
		c.policyMu.Unlock()
		return err
	}
	var runs []int
	excess := c.used.Load() - goal
	for i, b := range o.held.Runs() {
		if excess <= 0 || len(runs) == evictionBatch {
			break
		}
		runs = append(runs, i)
		excess -= b.Blocks()*presence.Block + runOverhead
	}
	e.mu.Lock()
	listed := e.listed
	e.mu.Unlock()
	if listed {
		c.cold = nil // somebody reads it now, so the policy has its runs
	} else if err = o.evict(runs); err == nil && o.held.Empty() {
		c.cold = nil
	}
	o.release()
	if errors.Is(err, errForget) {
		c.cold = nil
		o.lose()
		return nil
	}
	if c.cold == nil && err == nil {
		e.idle()
	}
	return err
}

// evict gives up runs. The order keeps every reader and every crash safe:
// first the map in memory, then gen (see cached.hit), then the map on disk,
// durably, and only then the holes. A durable range over a hole would be zeros
// served as data.
func (o *opened) evict(runs []int) error {
	e, c := o.e, o.e.c
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.gone || len(runs) == 0 {
		return nil
	}
	taken, cost := o.take(runs)
	if cost == 0 {
		return nil
	}
	o.gen.Add(1)
	if err := o.persistEviction(); err != nil {
		e.mu.Lock()
		for k, i := range runs {
			o.held.Restore(i, taken[k])
		}
		e.charge(cost)
		e.mu.Unlock()
		return err
	}
	var firstErr error
	for k, i := range runs {
		n := taken[k].Blocks()
		if n == 0 {
			continue
		}
		if err := o.file.Punch(int64(i)*presence.Run, presence.Run); err != nil && firstErr == nil {
			firstErr = err
		}
		c.count.evictions.Add(1)
		c.count.bytesEvicted.Add(n * presence.Block)
	}
	return firstErr
}

// take clears runs and settles account and policy, all at once for list.
func (o *opened) take(runs []int) (taken []presence.Ranges, cost int64) {
	e := o.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.c.policyMu.Lock()
	defer e.c.policyMu.Unlock()
	taken = make([]presence.Ranges, len(runs))
	for k, i := range runs {
		taken[k] = o.held.Take(i)
		if n := taken[k].Blocks(); n > 0 {
			cost += n*presence.Block + runOverhead
		}
		e.c.policy.Remove(runKey{e.rank, int32(i)})
	}
	e.charge(-cost)
	return taken, cost
}

// persistEviction makes the smaller map durable. On a full disk there may be
// no room for the smaller map either; then the old one is removed, which needs
// none, and the next checkpoint writes it anew.
func (o *opened) persistEviction() error {
	err := o.persist(true)
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	o.e.persisting.Lock()
	defer o.e.persisting.Unlock()
	return o.e.c.removeMap(o.e.path())
}
