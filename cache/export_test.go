package cache

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// OpenOn opens a cache on a file system of the test's.
func OpenOn(cfg Config, files disk.FS) (*Cache, error) { return open(cfg, files) }

// ParseMetadata parses a metadata file for fuzzing.
func ParseMetadata(data []byte, d digest.Digest) (ocispec.Descriptor, error) {
	m, err := parseMetadata(data, d)
	return m.Descriptor, err
}
