package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// Names in the cache's folder:
//
//	lock                       held while a process uses the folder
//	blobs/sha256/ab/abcd.json  metadata; its modification time is the last use
//	blobs/sha256/ab/abcd.data  the bytes, sparse, at their own offsets
//	blobs/sha256/ab/abcd.map   which of them are valid (package presence)
//	blobs/sha256/ab/abcd.now   the same, later, until the machine is started anew
//	                    ....tmp  a file being replaced
//
// where sha256:abcd is the key of the blob, see keyOf.
const (
	blobsDir  = "blobs"
	extMeta   = ".json"
	extData   = ".data"
	extRanges = ".map"
	extDraft  = ".now"
	extTemp   = ".tmp"

	// metadataVersion changes when any of the files changes incompatibly;
	// files of another version are forgotten.
	metadataVersion = 2
	metadataLimit   = 64 << 10
)

var extensions = []string{extMeta, extData, extRanges, extDraft}

// paths are the names of one blob's files.
type paths struct{ dir, meta, data, ranges, draft string }

// keyOf returns what the blob d from origin is kept under.
func keyOf(origin string, d digest.Digest) digest.Digest {
	if origin == "" {
		return d
	}
	return digest.FromString(d.String() + " from " + origin)
}

// rankOf returns what the eviction policy knows the blob d as. It is the same when
// a blob that was evicted comes again: policies remember some of those.
func rankOf(d digest.Digest) uint64 {
	sum := sha256.Sum256([]byte(d))
	return binary.LittleEndian.Uint64(sum[:])
}

func pathOf(key digest.Digest) paths {
	dir := path.Join(blobsDir, key.Algorithm().String(), key.Encoded()[:2])
	base := path.Join(dir, key.Encoded())
	return paths{dir: dir, meta: base + extMeta, data: base + extData, ranges: base + extRanges, draft: base + extDraft}
}

// metadata is what must be known of a blob without opening it.
type metadata struct {
	Version    int                `json:"version"`
	Origin     string             `json:"origin,omitempty"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	FetchedAt  time.Time          `json:"fetchedAt"`

	// VerifiedAt is when all bytes were last found to have the descriptor's
	// digest; they are all in the data file with that inode number then, and
	// there is no map.
	VerifiedAt time.Time `json:"verifiedAt,omitzero"`
	Inode      uint64    `json:"inode,omitempty"`
}

// parseMetadata reads a metadata file and refuses one that can't be of key.
func parseMetadata(data []byte, key digest.Digest) (metadata, error) {
	var m metadata
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	switch {
	case m.Version != metadataVersion:
		return m, fmt.Errorf("metadata version %d, not %d", m.Version, metadataVersion)
	case m.Descriptor.Digest.Validate() != nil || keyOf(m.Origin, m.Descriptor.Digest) != key:
		return m, fmt.Errorf("metadata of %s from %q in the place of %s", m.Descriptor.Digest, m.Origin, key)
	case m.Descriptor.Size <= 0 || m.Descriptor.Size > presence.MaxSize:
		return m, fmt.Errorf("metadata with a size of %d bytes", m.Descriptor.Size)
	case !m.VerifiedAt.IsZero() && (m.Origin != "" || m.Inode == 0):
		return m, errors.New("metadata of a verified blob with an origin or without an inode")
	}
	return m, nil
}

// replace writes the file name so that it is the old or the new one at any
// time, also after a crash.
func (c *Cache) replace(name string, data []byte) error {
	return c.replaceBy(c.fs.WriteFile, name, data)
}

// replaceSoon is replace without waiting for the disk: a crash of the machine may
// leave anything under the name.
func (c *Cache) replaceSoon(name string, data []byte) error {
	return c.replaceBy(c.fs.WriteDraft, name, data)
}

func (c *Cache) replaceBy(write func(string, []byte) error, name string, data []byte) error {
	temp := name + extTemp
	if err := write(temp, data); err != nil {
		_ = c.fs.Remove(temp)
		return err
	}
	return c.fs.Rename(temp, name)
}

// writeMetadata writes the metadata file unless that was done.
func (e *entry) writeMetadata() error {
	e.mu.Lock()
	done, fetchedAt := e.metadata, e.fetchedAt
	e.mu.Unlock()
	if done {
		return nil
	}
	data, err := json.Marshal(metadataFile(e, fetchedAt))
	if err != nil {
		return err
	}
	if err := e.c.replace(e.path().meta, data); err != nil {
		return err
	}
	// The data file is as new as this one. Its name must be durable before a
	// map speaks of it: a power cut could bring back a predecessor of the
	// same name and inode number.
	if err := e.c.fs.SyncDir(e.path().dir); err != nil {
		return err
	}
	e.mu.Lock()
	e.metadata, e.touched = true, 0 // the file's time is that of its writing
	e.mu.Unlock()
	return nil
}

// touchMetadata records the last use; e.mu is held. An error costs at most an
// eviction that is a little less clever after the next start.
func (e *entry) touchMetadata() {
	if last := e.lastUsed.Load(); e.metadata && last != e.touched {
		if e.c.fs.SetModTime(e.path().meta, time.Unix(0, last)) == nil {
			e.touched = last
		}
	}
}

// removeFiles removes the entry's files and settles its account; e.mu is held.
// The map goes first and for good: the file system may give the inode number
// of the data file to its successor, and then the old map must not come back.
func (e *entry) removeFiles() error {
	c := e.c
	if err := c.removeMap(e.path()); err != nil {
		return err
	}
	if err := c.remove(e.path().draft); err != nil {
		return err
	}
	if err := c.remove(e.path().data); err != nil {
		return err
	}
	if err := c.remove(e.path().meta); err != nil {
		return err
	}
	e.known, e.metadata = false, false
	c.policyMu.Lock()
	if e.listed && !c.cfg.WholeBlobs {
		for i := range (e.desc.Size + presence.Run - 1) / presence.Run {
			c.policy.Remove(runKey{e.rank, int32(i)})
		}
	}
	c.policy.Remove(runKey{e.rank, allRuns})
	c.policyMu.Unlock()
	e.listed = true
	e.charge(-e.cost.Load())
	return nil
}

// removeMap removes a map file, durably.
func (c *Cache) removeMap(p paths) error {
	err := c.fs.Remove(p.ranges)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return c.fs.SyncDir(p.dir)
}

// remove removes a file that may be missing.
func (c *Cache) remove(name string) error {
	if err := c.fs.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
