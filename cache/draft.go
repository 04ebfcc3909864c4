package cache

import (
	"encoding/json"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// What a shared cache fetches costs its upstream, and a process that is killed has
// not lost the bytes: the kernel writes them out. So beside the map that is durable
// there is a draft of it, which is good as long as the machine runs. It is written
// after so many bytes, or such a part of the blob if that is more, and after so long.
const (
	draftBytes = 256 << 10
	draftPart  = 200
	draftEvery = 100 * time.Millisecond
)

// draftAll writes drafts of what is being filled slowly, until the cache closes.
func (c *Cache) draftAll() {
	ticker := time.NewTicker(draftEvery)
	defer ticker.Stop()
	stored := int64(0)
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		now := c.count.bytesStored.Load()
		if now == stored {
			continue
		}
		stored = now
		for _, e := range c.loadedEntries() {
			if o := e.now.Load(); o != nil && o.undrafted.Load() > 0 {
				o.draft()
			}
		}
	}
}

// draft writes a draft of the map, and of the metadata if there is none. An error
// costs what was stored since the last checkpoint if the process is killed.
func (o *opened) draft() {
	e, c := o.e, o.e.c
	// Whoever holds it is writing what is better, or removes it.
	if !e.persisting.TryLock() {
		return
	}
	defer e.persisting.Unlock()
	e.mu.Lock()
	p, known, metadata, fetchedAt := e.path(), e.known && !e.dead, e.metadata, e.fetchedAt
	// A small blob is settled soon, and soon fetched again.
	settled := e.verified.Load() && (metadata || e.stored == e.desc.Digest || e.desc.Size < draftBytes)
	e.mu.Unlock()
	o.undrafted.Store(0)
	if e.now.Load() != o || !known || settled {
		return
	}
	if !metadata {
		data, err := json.Marshal(metadataFile(e, fetchedAt))
		if err != nil || c.replaceSoon(p.meta, data) != nil {
			return
		}
	}
	_ = c.replaceSoon(p.draft, o.held.Append(nil, e.draftIdentity(o.inode)))
}

// metadataFile is the metadata of a blob as it is before it is verified.
func metadataFile(e *entry, fetchedAt time.Time) metadata {
	return metadata{Version: metadataVersion, Origin: e.source, Descriptor: e.desc, FetchedAt: fetchedAt}
}

func (e *entry) draftIdentity(inode uint64) presence.Identity {
	id := e.identity(inode)
	id.Digest += " since " + e.c.boot
	return id
}

// readDraft returns the map that a process left which was killed since the machine
// was started, nil if there is none. Then neither it nor the metadata is durable;
// e.mu is held.
func (e *entry) readDraft(inode uint64) *presence.Map {
	if !e.c.cfg.WholeBlobs {
		return nil
	}
	data, err := e.c.fs.ReadFile(e.path().draft, presence.FileLimit(e.desc.Size))
	if err != nil {
		return nil
	}
	held, err := presence.Parse(data, e.draftIdentity(inode))
	if err != nil {
		return nil
	}
	e.metadata = false
	return held
}
