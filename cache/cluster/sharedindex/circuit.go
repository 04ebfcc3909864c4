package sharedindex

import (
	"sync"
	"time"
)

// circuit knows which nodes of Redis are away. Of a cluster some may be, and what the
// others have can still be asked for.
type circuit struct {
	mu      sync.Mutex
	away    map[string]string // by node: a key that it did not answer for
	since   time.Time         // when away became empty, or not empty
	lastErr string
}

// open reports whether the node is away.
func (c *circuit) open(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, away := c.away[node]
	return away
}

// trip says that node did not answer for key.
func (c *circuit) trip(node, key string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.away) == 0 {
		c.since = time.Now()
	}
	c.away[node] = key
	c.lastErr = err.Error()
}

// note keeps an error for Stats.
func (c *circuit) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err.Error()
}

// mend says that there was an answer for key, which node did not give before.
func (c *circuit) mend(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, away := c.away[node]; !away {
		return
	}
	delete(c.away, node)
	if len(c.away) == 0 {
		c.since = time.Now()
	}
}

// outages returns the nodes that are away, each with a key to ask for.
func (c *circuit) outages() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]string, len(c.away))
	for node, key := range c.away {
		out[node] = key
	}
	return out
}

func (c *circuit) state() (up bool, since time.Time, lastErr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.away) == 0, c.since, c.lastErr
}
