package cache

import "github.com/reprise-containers/reprise/cache/internal/disk"

// OpenOn opens a cache on a file system of the test's.
func OpenOn(cfg Config, files disk.FS) (*Cache, error) { return open(cfg, files) }
