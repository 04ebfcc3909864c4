package index

import (
	"errors"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// OpenOn opens an index on a file system of the test's.
func OpenOn(files disk.FS, cfg Config) (*Index, error) { return open(files, cfg) }

// Parse is the parser of link files.
func Parse(data []byte, name string) (Link, error) {
	want, ok := idOf(name)
	if !ok {
		return Link{}, errors.New("not an ID")
	}
	return parse(data, want)
}

// Encode is what Parse reads.
func Encode(l Link) ([]byte, error) { return encode(l) }
