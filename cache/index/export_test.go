package index

import "github.com/reprise-containers/reprise/cache/internal/disk"

// OpenOn opens an index on a file system of the test's.
func OpenOn(files disk.FS, cfg Config) (*Index, error) { return open(files, cfg) }

// Parse is the parser of link files.
func Parse(data []byte, id string) (Link, error) { return parse(data, id) }
