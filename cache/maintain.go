package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	tick       = time.Second
	touchEvery = time.Minute      // refresh the last use on disk
	shrinkWait = 10 * time.Second // between two rounds of giving up space
)

// maintain does what is due by the clock until the cache closes: checkpoints,
// closing idle blobs, watching the disk.
func (c *Cache) maintain() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	lastCheckpoint, lastShrink := time.Now(), time.Time{}
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		case <-ticker.C:
		}
		now := time.Now()
		c.clock.Store(now.UnixNano())
		c.measureSpace()
		if now.Sub(lastShrink) >= shrinkWait && c.shrink() {
			lastShrink = now
		}
		if now.Sub(lastCheckpoint) >= c.cfg.CheckpointEvery || c.dirty.Load() > checkpointBytes {
			_ = c.checkpoint() // its error is counted and told
			c.refreshUse(now)
			lastCheckpoint = now
		}
		c.closeIdle(now)
	}
}

// poke makes maintain look now.
func (c *Cache) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// checkpointParallel is how many blobs are made durable at a time: journals
// commit for all who wait.
const checkpointParallel = 8

// checkpoint makes all that is stored durable.
func (c *Cache) checkpoint() error {
	c.checkpointing.Lock()
	defer c.checkpointing.Unlock()
	c.dirty.Store(0)
	// What changes from now on is the next one's, or this one would not end.
	list := slices.DeleteFunc(c.loadedEntries(), func(e *entry) bool {
		o := e.now.Load()
		return o == nil || !o.dirty.Load()
	})
	c.settleTogether(list)
	var (
		group errgroup.Group
		mu    sync.Mutex
		errs  []error
	)
	group.SetLimit(checkpointParallel)
	for _, e := range list {
		group.Go(func() error {
			if err := e.checkpoint(); err != nil {
				err = fmt.Errorf("checkpointing blob %s: %w", e.desc.Digest, err)
				c.count.storeErrors.Add(1)
				c.failed(err)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// checkpoint makes e durable if it is open and has changed.
func (e *entry) checkpoint() error {
	e.mu.Lock()
	o := e.now.Load()
	if o == nil || !o.dirty.Load() {
		e.mu.Unlock()
		return nil
	}
	o.users.Add(1)
	e.mu.Unlock()
	defer o.release()
	err := o.persist(false)
	if errors.Is(err, errForget) {
		o.lose()
		return nil
	}
	return err
}

// persist makes the data durable and then the map that speaks of it; with
// syncDir also the replacement of the older map, so that it can't come back.
func (o *opened) persist(syncDir bool) error {
	o.e.persisting.Lock()
	defer o.e.persisting.Unlock()
	if o.e.now.Load() != o {
		return errForget // its successor may have files by the same names
	}
	o.dirty.Store(false) // before the snapshot: what changes later counts again
	var err error
	if o.e.verified.Load() {
		err = o.settle()
	} else {
		err = o.writeMap(syncDir)
	}
	if err != nil {
		o.dirty.Store(true)
	}
	return err
}

func (o *opened) writeMap(syncDir bool) error {
	e, c := o.e, o.e.c
	// The snapshot first: the bytes it speaks of were written before.
	snapshot := o.held.Append(nil, e.identity(o.inode))
	if err := o.syncData(); err != nil {
		return err
	}
	if err := e.writeMetadata(); err != nil {
		return err
	}
	if err := c.replace(e.path().ranges, snapshot); err != nil {
		return err
	}
	c.count.checkpoints.Add(1)
	if c.cfg.WholeBlobs {
		_ = c.remove(e.path().draft) // it is not the latest any more
	}
	if syncDir {
		return c.fs.SyncDir(e.path().dir)
	}
	return nil
}

// syncData makes the data durable that was written so far.
func (o *opened) syncData() error {
	e, c := o.e, o.e.c
	if err := o.file.Datasync(); err != nil {
		// The kernel takes pages it could not write for clean, so what was
		// written is uncertain for good and the next call would succeed.
		c.count.storeErrors.Add(1)
		c.failed(fmt.Errorf("storing blob %s: %w", e.desc.Digest, err))
		return errForget
	}
	info, err := c.fs.Stat(e.path().data)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Inode != o.inode {
		return errForget // somebody removed or replaced it
	}
	return err
}

// lose forgets the content of an open blob whose files were lost. Reads under
// way are not disturbed: the open file lives on until they are done. A verified
// blob goes as a whole, name and all: what comes next under its digest must not
// pass for verified.
func (o *opened) lose() {
	if o.e.verified.Load() {
		o.e.c.count.forgotten.Add(1)
		if err := o.e.expel(); err != nil {
			o.e.c.failed(fmt.Errorf("removing damaged blob %s: %w", o.e.desc.Digest, err))
		}
		return
	}
	o.writing.Lock()
	o.gone = true
	o.writing.Unlock()
	e := o.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now.Load() != o {
		return
	}
	e.c.count.forgotten.Add(1)
	e.now.Store(nil)
	if e.removeFiles() != nil {
		e.retryAt = e.c.clock.Load() + int64(loadRetry)
	}
	e.closeFiles(o)
}

// refreshUse brings the last use of open blobs to the disk now and then, so
// that a crash does not lose the order of use.
func (c *Cache) refreshUse(now time.Time) {
	for _, e := range c.loadedEntries() {
		e.mu.Lock()
		if age := now.UnixNano() - e.touched; age > int64(touchEvery) || age < 0 {
			e.touchMetadata()
		}
		e.mu.Unlock()
	}
}

// closeIdle closes blobs not read for a while, and the longest unused ones if
// too many are open.
func (c *Cache) closeIdle(now time.Time) {
	list := c.loadedEntries()
	for _, e := range list {
		if last := e.lastUsed.Load(); last > now.UnixNano() { // the clock was set back
			e.lastUsed.CompareAndSwap(last, now.UnixNano())
		}
	}
	slices.SortFunc(list, func(a, b *entry) int {
		return time.Unix(0, a.lastUsed.Load()).Compare(time.Unix(0, b.lastUsed.Load()))
	})
	excess := len(list) - c.cfg.MaxOpen
	if excess > 0 {
		excess += c.cfg.MaxOpen / 8 // not one at a time
		if !c.paused() {
			c.checkpointing.Lock()
			c.settleTogether(list)
			c.checkpointing.Unlock()
		}
	}
	for _, e := range list {
		if excess <= 0 && now.UnixNano()-e.lastUsed.Load() < int64(c.cfg.IdleAfter) {
			return
		}
		if c.paused() {
			// Dirty blobs stay open until the disk works again.
		} else if err := e.checkpoint(); err != nil {
			c.count.storeErrors.Add(1)
			c.failed(fmt.Errorf("checkpointing blob %s: %w", e.desc.Digest, err))
		}
		if e.idle() {
			excess--
		}
	}
}
