package cache

import "github.com/opencontainers/go-digest"

// BlobBytes returns the disk space in bytes that the cache takes for a blob.
func (c *Cache) BlobBytes(d digest.Digest) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.blobs[d]; e != nil {
		return e.cost.Load()
	}
	return 0
}
