package cache

import "sync/atomic"

// Stats is a snapshot of what a Cache holds and did since it was opened.
type Stats struct {
	Hits   int64 // reads served without the inner blob
	Misses int64 // reads for which something was fetched

	BytesServed  int64 // returned to readers
	BytesFetched int64 // read from inner blobs
	BytesStored  int64 // written to the disk
	BytesEvicted int64 // disk space given back by eviction

	Evictions     int64 // runs of 1 MiB evicted
	DroppedStores int64 // fetched but not stored: queue full, no room, disk failing
	Discards      int64 // calls of Discard, and ranges the disk could not return
	Forgotten     int64 // blobs dropped because their files were damaged or lost
	ReadErrors    int64 // failed reads of cached bytes
	StoreErrors   int64 // failed stores and checkpoints
	Checkpoints   int64 // maps written

	Bytes     int64  // disk space in use, maps and metadata included
	Queued    int64  // bytes fetched but not yet stored
	Blobs     int    // blobs known
	Open      int    // of these, blobs with a file descriptor and a map in memory
	LastError string // of the cache's own disk, empty if there was none
}

type counters struct {
	hits, misses                                         atomic.Int64
	bytesServed, bytesFetched, bytesStored, bytesEvicted atomic.Int64
	evictions, droppedStores, discards, forgotten        atomic.Int64
	readErrors, storeErrors, checkpoints                 atomic.Int64
}

// Stats returns the counters. They are read one by one, not at one moment.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	blobs, open := len(c.ranked), len(c.loaded)
	c.mu.Unlock()
	c.queue.mu.Lock()
	queued := c.queue.bytes
	c.queue.mu.Unlock()
	n := &c.count
	return Stats{
		Hits:          n.hits.Load(),
		Misses:        n.misses.Load(),
		BytesServed:   n.bytesServed.Load(),
		BytesFetched:  n.bytesFetched.Load(),
		BytesStored:   n.bytesStored.Load(),
		BytesEvicted:  n.bytesEvicted.Load(),
		Evictions:     n.evictions.Load(),
		DroppedStores: n.droppedStores.Load(),
		Discards:      n.discards.Load(),
		Forgotten:     n.forgotten.Load(),
		ReadErrors:    n.readErrors.Load(),
		StoreErrors:   n.storeErrors.Load(),
		Checkpoints:   n.checkpoints.Load(),
		Bytes:         c.used.Load(),
		Queued:        queued,
		Blobs:         blobs,
		Open:          open,
		LastError:     c.lastError(),
	}
}
