package convert

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/chunks"
)

// Cache is a directory that says which blobs layers were converted to: a small
// JSON file for each. It holds no blobs. Processes may share it, and files may
// be deleted at any time.
type Cache struct{ dir string }

// maxRepositories bounds the repositories that are remembered for a blob.
const maxRepositories = 16

// key identifies a converted layer by all that decides what is in it.
type key struct {
	Chain     digest.Digest `json:"chain"`     // of the source's layers
	Converter string        `json:"converter"` // and its options
}

// entry is a converted layer. As JSON it is a file of the cache.
type entry struct {
	Key    key           `json:"key"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes
	Chunks table         `json:"chunks"`
	// Repositories have had the blob, the latest first.
	Repositories []string `json:"repositories,omitempty"`
}

// table is a chunks.Ref with names for the file.
type table struct {
	Root   digest.Digest `json:"root"`
	Offset int64         `json:"offset"` // bytes
	Size   int64         `json:"size"`   // bytes
}

// OpenCache returns the cache in dir, which is made when it is first needed.
func OpenCache(dir string) *Cache { return &Cache{dir} }

func (c *Cache) path(k key) string {
	return filepath.Join(c.dir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(k.Chain.String()+" "+k.Converter))))
}

// lookup returns the entry for k. An entry that can't be read is none.
func (c *Cache) lookup(k key) (entry, bool) {
	if c == nil {
		return entry{}, false
	}
	var e entry
	text, err := os.ReadFile(c.path(k))
	if err != nil || json.Unmarshal(text, &e) != nil {
		return entry{}, false
	}
	return e, e.Key == k && e.valid()
}

// valid reports whether e says what a layer is and where its chunk table lies.
func (e entry) valid() bool {
	ref := chunks.Ref(e.Chunks)
	return e.Digest.Validate() == nil && e.Size > 0 && !ref.IsZero() && ref.Validate(e.Size) == nil
}

// add remembers e, in addition to the repositories known already.
func (c *Cache) add(e entry) error {
	if c == nil {
		return nil
	}
	if old, ok := c.lookup(e.Key); ok && old.Digest == e.Digest {
		for _, r := range old.Repositories {
			if !slices.Contains(e.Repositories, r) {
				e.Repositories = append(e.Repositories, r)
			}
		}
		e.Repositories = e.Repositories[:min(len(e.Repositories), maxRepositories)]
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return c.write(c.path(e.Key), text)
}

func (c *Cache) write(path string, text []byte) error {
	f, err := os.CreateTemp(c.dir, "new")
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(c.dir, 0o755); err == nil {
			f, err = os.CreateTemp(c.dir, "new")
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
