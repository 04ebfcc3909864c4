package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// checkpointBytes is how much may be stored before a checkpoint is due
// whatever the time.
const checkpointBytes = 64 << 20

// storeAll stores queued tasks until the queue is closed and empty. It is the
// only writer of data, so that readers never wait for the disk.
func (c *Cache) storeAll() {
	for t := c.queue.pop(); t != nil; t = c.queue.pop() {
		if t.reached != nil {
			close(t.reached)
			continue
		}
		if err := t.store(); errors.Is(err, errForget) {
			c.count.droppedStores.Add(1)
			t.o.lose()
		} else if err != nil {
			c.count.storeErrors.Add(1)
			c.count.droppedStores.Add(1)
			c.failed(fmt.Errorf("storing blob %s: %w", t.o.e.desc.Digest, err))
			c.makeRoomOnFullDisk(err)
		}
		t.o.unqueue(t)
		c.queue.done(t)
		t.o.release()
	}
}

// store writes t to the data file and then marks it as present.
func (t *task) store() error {
	o, c := t.o, t.o.e.c
	if !o.waits(t) {
		return nil // discarded
	}
	need := o.price(t)
	if c.paused() || !c.reserve(need) {
		c.count.droppedStores.Add(1)
		return nil
	}
	defer c.used.Add(-need) // what it really took is charged on top
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.gone || !o.waits(t) || o.e.verified.Load() {
		return nil
	}
	if o.file == nil {
		if err := o.e.create(o); err != nil {
			return err
		}
	}
	if o.price(t) > need {
		// Making room took the very blocks that t was to share.
		c.count.droppedStores.Add(1)
		return nil
	}
	return o.write(t)
}

// price returns what storing t adds to the account. Only evictions and
// discards by others can raise it.
func (o *opened) price(t *task) int64 {
	n := o.held.Vacant(t.off, int64(len(t.buf))) * presence.Block
	if o.held.Ranges(int(t.off / presence.Run)).Empty() {
		n += runOverhead
	}
	if !o.made.Load() {
		n += blobOverhead
	}
	return n
}

// write stores t and settles account and policy; o.writing is held.
func (o *opened) write(t *task) error {
	e, c := o.e, o.e.c
	// A file that somebody cut must not grow again: it would have holes where
	// held says that there are none.
	if info, err := o.file.Stat(); err != nil {
		return err
	} else if info.Size != e.desc.Size {
		return errForget
	}
	if _, err := o.file.WriteAt(t.buf, t.off); err != nil {
		return err
	}
	run, n := int(t.off/presence.Run), int64(len(t.buf))
	cost := int64(0)
	if o.held.Ranges(run).Empty() {
		cost = runOverhead
	}
	blocks, content := o.held.Set(t.off, n)
	cost += blocks * presence.Block
	o.dirty.Store(true)
	e.charge(cost)
	c.policyMu.Lock()
	c.policy.Add(e.unit(t.off), content)
	c.policyMu.Unlock()
	c.worked()
	c.count.bytesStored.Add(n)
	o.undrafted.Add(n)
	if c.dirty.Add(n) > checkpointBytes {
		c.poke()
	}
	return nil
}

// create makes the data file of o. A map that is still about from an earlier
// life must go first, see removeFiles.
func (e *entry) create(o *opened) error {
	c := e.c
	e.persisting.Lock()
	defer e.persisting.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := c.fs.MkdirAll(e.path().dir); err != nil {
		return err
	}
	if err := c.removeMap(e.path()); err != nil {
		return err
	}
	if err := c.remove(e.path().draft); err != nil {
		return err
	}
	f, err := c.fs.Open(e.path().data, true)
	if err != nil {
		return err
	}
	if err = f.Truncate(0); err == nil {
		err = f.Truncate(e.desc.Size)
	}
	info, statErr := f.Stat()
	if err == nil {
		err = statErr
	}
	if err != nil {
		f.Close()
		return err
	}
	o.file, o.inode = f, info.Inode
	o.made.Store(true)
	e.known = true
	e.fetchedAt = time.Now().UTC()
	e.charge(blobOverhead)
	return nil
}

// discard drops the presence of the n bytes at off. Their disk space stays
// allocated for the bytes that will replace them.
func (o *opened) discard(off, n int64) {
	e, c := o.e, o.e.c
	o.writing.Lock()
	if e.verified.Load() {
		o.writing.Unlock()
		o.lose()
		return
	}
	defer o.writing.Unlock()
	o.unqueueRange(off, off+n)
	if o.gone {
		return
	}
	for n > 0 {
		k := min(n, presence.Run-off%presence.Run)
		run := int(off / presence.Run)
		if !o.held.Ranges(run).Empty() {
			blocks, content := o.held.Clear(off, k)
			cost := blocks * presence.Block
			if o.held.Ranges(run).Empty() {
				cost += runOverhead
			}
			o.dirty.Store(true)
			e.charge(-cost)
			c.policyMu.Lock()
			c.policy.Add(e.unit(off), -content)
			c.policyMu.Unlock()
		}
		off, n = off+k, n-k
	}
	c.count.discards.Add(1)
}
