package cluster

import (
	"time"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
)

const (
	// doubtFor is how long peers are not asked for a blob that was found wrong after they
	// had given some of it: the disk of one may have become so, which it has to find out
	// by itself.
	doubtFor = 10 * time.Minute
	// maxGiven bounds how many blobs are remembered of which peers gave something.
	maxGiven = 4096
)

// believed takes note that a peer gives something of a blob.
func (c *Cluster) believed(key sharedindex.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.given) >= maxGiven {
		clear(c.given) // then one that is wrong is asked of them again
	}
	c.given[key] = time.Now()
}

// Mismatched is told of content that was found wrong.
func (c *Cluster) Mismatched(x *cache.Content) {
	key := sharedindex.Key{Origin: x.Origin(), Digest: x.Descriptor().Digest}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.given[key]; !ok {
		return // it is what the upstream sent
	}
	now := time.Now()
	for k, since := range c.wrong {
		if now.Sub(since) > doubtFor {
			delete(c.wrong, k)
		}
	}
	c.wrong[key] = now
}

// doubted reports whether peers are not to be asked for a blob.
func (c *Cluster) doubted(key sharedindex.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.wrong[key]
	return ok && time.Since(since) < doubtFor
}
