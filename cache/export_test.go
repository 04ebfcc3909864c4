package cache

import (
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/disk"
	"github.com/reprise-containers/reprise/remote/blob"
)

// OpenOn opens a cache on a file system of the test's.
func OpenOn(cfg Config, files disk.FS) (*Cache, error) { return open(cfg, files) }

// Held yields the ranges of b that are stored.
func Held(b blob.Blob) iter.Seq2[int64, int64] {
	return func(yield func(off, end int64) bool) {
		o := b.(*cached).open()
		if o == nil {
			return
		}
		defer o.release()
		for off, size := int64(0), b.Size(); off < size; {
			here, until := o.held.Extent(off, size)
			if here && !yield(off, until) {
				return
			}
			off = until
		}
	}
}

// ParseMetadata parses a metadata file for fuzzing.
func ParseMetadata(data []byte, d digest.Digest) (ocispec.Descriptor, error) {
	m, err := parseMetadata(data, d)
	return m.Descriptor, err
}
