package cache

import (
	"iter"
	"os"
	"time"

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

// OpenFailing opens a cache on the operating system's files, whose calls fail as
// fault says, which is told the name of the method.
func OpenFailing(cfg Config, fault func(kind string) error) (*Cache, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	files, err := disk.OpenOS(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return open(cfg, failing{files, fault})
}

type failing struct {
	disk.FS
	fault func(kind string) error
}

func (f failing) Open(name string, create bool) (disk.File, error) {
	if err := f.fault("Open"); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name, create)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f.fault}, nil
}

type failingFile struct {
	disk.File
	fault func(kind string) error
}

func (f failingFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fault("ReadAt"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f failingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fault("WriteAt"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

// SetPause has storing wait until t, as if the clock had been set back since.
func SetPause(c *Cache, t time.Time) { c.until.Store(t.UnixNano()) }
