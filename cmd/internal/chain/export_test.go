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
