package cache

import (
	"fmt"

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
		if err := t.store(); err != nil {
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
	o, n := t.o, int64(len(t.buf))
	e, c := o.e, o.e.c
	if !o.waits(t) {
		return nil // discarded
	}
	if c.paused() {
		c.count.droppedStores.Add(1)
		return nil
	}
	// The most this can take: all its blocks are new.
	need := roundUp(t.end(), presence.Block) - t.off/presence.Block*presence.Block + runOverhead
	if o.file == nil {
		need += blobOverhead
	}
	if !c.reserve(need) {
		c.count.droppedStores.Add(1)
		return nil
	}
	defer c.used.Add(-need) // what it really took was charged
	if o.file == nil {
		if err := e.create(o); err != nil {
			return err
		}
	}
	o.writing.Lock()
	defer o.writing.Unlock()
	if o.gone || !o.waits(t) {
		return nil
	}
	if _, err := o.file.WriteAt(t.buf, t.off); err != nil {
		return err
	}
	run := int(t.off / presence.Run)
	cost := int64(0)
	if o.units.Blocks(run) == 0 {
		cost = runOverhead
	}
	cost += o.units.Set(t.off, n) * presence.Block
	o.dirty.Store(true)
	e.charge(cost)
	c.policyMu.Lock()
	c.policy.Add(runKey{e.id, int32(run)}, cost)
	c.policyMu.Unlock()
	c.worked()
	c.count.bytesStored.Add(n)
	if c.dirty.Add(n) > checkpointBytes {
		c.poke()
	}
	return nil
}

// create makes the data file of o. A map that is still about from an earlier
// life must go first, see removeFiles.
func (e *entry) create(o *opened) error {
	c := e.c
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := c.fs.MkdirAll(e.path.dir); err != nil {
		return err
	}
	if err := c.removeMap(e.path); err != nil {
		return err
	}
	f, err := c.fs.Open(e.path.data, true)
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
	e.known = true
	e.charge(blobOverhead)
	return nil
}

// discard drops the presence of the n bytes at off. Their disk space stays
// allocated for the bytes that will replace them.
func (o *opened) discard(off, n int64) {
	e, c := o.e, o.e.c
	o.writing.Lock()
	defer o.writing.Unlock()
	o.unqueueRange(off, off+n)
	if o.gone {
		return
	}
	for n > 0 {
		k := min(n, presence.Run-off%presence.Run)
		run := int(off / presence.Run)
		before := o.units.Blocks(run)
		cost := o.units.Clear(off, k) * presence.Block
		if before > 0 && o.units.Blocks(run) == 0 {
			cost += runOverhead
		}
		if before > 0 {
			o.dirty.Store(true)
			e.charge(-cost)
			c.policyMu.Lock()
			c.policy.Add(runKey{e.id, int32(run)}, -cost)
			c.policyMu.Unlock()
		}
		off, n = off+k, n-k
	}
	c.count.discards.Add(1)
}
