package cache

import (
	"encoding/json"
	"slices"
)

// How many blobs are settled with two syncs of the whole file system instead of
// three of files and folders each.
const (
	settleMin = 4
	settleMax = 1024
)

// settle makes a verified blob durable and gives its files the name of the digest;
// e.persisting is held. The metadata names the inode, and all of the data is durable
// before there is such metadata, so whatever a crash leaves under that name is
// either this file or nothing. A blob that has its name already is verified anew:
// its metadata is replaced durably, or a crash could cost it.
func (o *opened) settle() error {
	e, c := o.e, o.e.c
	if err := o.syncData(); err != nil {
		return err
	}
	if err := o.rename(c.replace); err != nil {
		return err
	}
	e.mu.Lock()
	dir := e.path().dir
	e.mu.Unlock()
	if err := c.fs.SyncDir(dir); err != nil {
		return err
	}
	o.settled(true)
	return nil
}

// rename writes the metadata of a verified blob, whose data is durable, with write,
// and gives its files their name; e.persisting is held.
func (o *opened) rename(write func(name string, data []byte) error) error {
	e, c := o.e, o.e.c
	e.mu.Lock()
	from, old := e.path(), e.stored
	m := metadata{
		Version: metadataVersion, Descriptor: e.desc, FetchedAt: e.fetchedAt,
		VerifiedAt: e.verifiedAt, Inode: o.inode,
	}
	e.mu.Unlock()
	to := pathOf(e.desc.Digest)
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.fs.MkdirAll(to.dir); err != nil {
		return err
	}
	if err := write(to.meta, data); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	if err := c.fs.Rename(from.data, to.data); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stored = e.desc.Digest
	// Without its data a map or metadata says nothing, should they stay.
	_ = c.remove(from.ranges)
	_ = c.remove(from.meta)
	_ = c.remove(from.draft)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blobs[old] == e {
		delete(c.blobs, old)
	}
	return nil
}

// settled notes whether the metadata of o is durable.
func (o *opened) settled(done bool) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.e.metadata = done && o.e.known
	o.e.touched = 0 // the file is as new as its name
	if done {
		o.e.c.count.checkpoints.Add(1)
	} else {
		o.dirty.Store(true)
	}
}

// settleTogether settles those of list that were verified since the last
// checkpoint, if there are enough of them; c.checkpointing is held. Those it does
// not settle stay dirty.
func (c *Cache) settleTogether(list []*entry) {
	if !c.cfg.WholeBlobs {
		return
	}
	for batch := range slices.Chunk(list, settleMax) {
		c.settleBatch(batch)
	}
}

func (c *Cache) settleBatch(batch []*entry) {
	var all []*opened
	for _, e := range batch {
		if o := e.unsettled(); o != nil {
			defer o.release()
			all = append(all, o)
		}
	}
	// An error is found again, and told of the right blob, when each is settled
	// by itself.
	if len(all) < settleMin || c.fs.Sync() != nil {
		return
	}
	renamed := all[:0]
	for _, o := range all {
		if o.renameDurable() {
			renamed = append(renamed, o)
		}
	}
	done := c.fs.Sync() == nil
	for _, o := range renamed {
		o.settled(done)
	}
}

// unsettled returns the open state of e, pinned, if e is a verified blob whose files
// don't have its name yet.
func (e *entry) unsettled() *opened {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.now.Load()
	if o == nil || !o.dirty.Load() || !e.verified.Load() || e.stored == e.desc.Digest {
		return nil
	}
	o.users.Add(1)
	return o
}

// renameDurable renames the files of o, whose data is durable by now. What it does
// not rename stays dirty.
func (o *opened) renameDurable() bool {
	e, c := o.e, o.e.c
	e.persisting.Lock()
	defer e.persisting.Unlock()
	if e.now.Load() != o || e.stored == e.desc.Digest {
		return false
	}
	info, err := c.fs.Stat(e.path().data)
	if err != nil || info.Inode != o.inode || info.Size != e.desc.Size {
		return false
	}
	o.dirty.Store(false)
	if err := o.rename(c.replaceSoon); err != nil {
		o.dirty.Store(true)
		return false
	}
	return true
}
