package cache

import "github.com/opencontainers/go-digest"

// BlobBytes returns the disk space in bytes that the cache takes for a blob,
// whatever origins it came from.
func (c *Cache) BlobBytes(d digest.Digest) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.ranked {
		if e.desc.Digest == d {
			n += e.cost.Load()
		}
	}
	return n
}
