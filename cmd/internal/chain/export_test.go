package chain

import "github.com/opencontainers/go-digest"

// ParseArtifact returns the root digests of the tables that an artifact lists,
// by layer.
func ParseArtifact(text []byte, manifest digest.Digest) (map[digest.Digest]digest.Digest, error) {
	found := make(map[digest.Digest]table)
	err := parseArtifact(text, manifest, found)
	roots := make(map[digest.Digest]digest.Digest)
	for layer, t := range found {
		roots[layer] = t.root
	}
	return roots, err
}

// Waiting returns how many calls wait, or waited, for replays that are under way.
func (c *Chain) Waiting() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.replays {
		n += r.waiting
	}
	return n
}

// NewBudget returns what a cache of so many bytes gives to replays.
func NewBudget(cache int64) func(want int64) (n int64, giveBack func()) {
	return (&budget{cache: cache}).take
}
