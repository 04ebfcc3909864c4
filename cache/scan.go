package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// scanParallel is how many folders are read at a time at the start, when
// nothing of them is in memory and the disk has to be waited for.
const scanParallel = 16

// found is a blob seen at the start.
type found struct {
	origin    string
	desc      ocispec.Descriptor
	lastUsed  int64 // Unix nanoseconds
	allocated int64 // bytes

	fetchedAt, verifiedAt time.Time
	inode                 uint64
}

// adoptBatch bounds what is adopted in one go, while others wait for Cache.mu.
const adoptBatch = 256

// scan reads the metadata of all blobs: for each one file and two stats, maps
// and data stay unread. Leftovers of a crash are removed. After an error it may be
// called again.
func (c *Cache) scan() error {
	if err := c.fs.MkdirAll(blobsDir); err != nil {
		return err
	}
	algorithms, err := c.fs.ReadDir(blobsDir)
	if err != nil {
		return err
	}
	var (
		group errgroup.Group
		mu    sync.Mutex
		all   []found
	)
	group.SetLimit(scanParallel)
	for _, alg := range algorithms {
		shards, err := c.fs.ReadDir(path.Join(blobsDir, alg))
		if errors.Is(err, syscall.ENOTDIR) {
			continue // not ours
		} else if err != nil {
			return errors.Join(err, group.Wait())
		}
		for _, shard := range shards {
			if c.closed() {
				return errors.Join(ErrClosed, group.Wait())
			}
			group.Go(func() error {
				list, err := c.scanShard(alg, shard)
				mu.Lock()
				defer mu.Unlock()
				all = append(all, list...)
				return err
			})
		}
	}
	err = group.Wait()
	// Oldest first, so that the policy sees them in the order of their use.
	slices.SortFunc(all, func(a, b found) int {
		if a.lastUsed != b.lastUsed {
			return int(max(-1, min(1, a.lastUsed-b.lastUsed)))
		}
		return strings.Compare(string(a.desc.Digest), string(b.desc.Digest))
	})
	for batch := range slices.Chunk(all, adoptBatch) {
		c.mu.Lock()
		for _, f := range batch {
			if c.blobs[keyOf(f.origin, f.desc.Digest)] == nil && !c.closing {
				c.adoptLocked(f)
			}
		}
		c.mu.Unlock()
	}
	if err == nil {
		c.scanned.Store(true)
	}
	return err
}

// scanRetry is how long a scan that failed waits before it is tried again.
const scanRetry = time.Minute

// scanBehind scans while the cache is used, again and again until everything could
// be read: what was not seen is looked for by its name until then.
func (c *Cache) scanBehind() {
	for {
		err := c.scan()
		if err == nil || errors.Is(err, ErrClosed) {
			return
		}
		c.failed(fmt.Errorf("scanning the cache: %w", err))
		select {
		case <-time.After(scanRetry):
		case <-c.stop:
			return
		}
	}
}

// adoptLocked makes an entry of what the disk holds; c.mu is held.
func (c *Cache) adoptLocked(f found) *entry {
	e := c.addLocked(f.origin, f.desc)
	e.known, e.metadata = true, true
	e.fetchedAt, e.verifiedAt, e.inode = f.fetchedAt, f.verifiedAt, f.inode
	e.verified.Store(!f.verifiedAt.IsZero())
	e.lastUsed.Store(min(f.lastUsed, c.clock.Load()))
	e.touched = f.lastUsed
	e.charge(f.allocated + blobOverhead)
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	c.policy.Add(runKey{e.rank, allRuns}, f.allocated)
	return e
}

// forget removes the files of key, which belong to no entry. It holds c.mu for
// that: while the scan runs behind, somebody may be about to make such files.
func (c *Cache) forget(key digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blobs[key] != nil {
		return false
	}
	p := pathOf(key)
	if c.removeMap(p) != nil || c.remove(p.draft) != nil || c.remove(p.data) != nil {
		return false
	}
	_ = c.remove(p.meta)
	return true
}

// scanShard returns the blobs of one folder and removes what belongs to none.
func (c *Cache) scanShard(alg, shard string) ([]found, error) {
	dir := path.Join(blobsDir, alg, shard)
	names, err := c.fs.ReadDir(dir)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil // not ours
	} else if err != nil {
		return nil, err
	}
	bases := make(map[string]bool)
	for _, name := range names {
		if strings.HasSuffix(name, extTemp) {
			c.removeTemp(alg, dir, name)
		} else if ext := path.Ext(name); slices.Contains(extensions, ext) {
			bases[strings.TrimSuffix(name, ext)] = true
		}
	}
	var list []found
	for base := range bases {
		key, ok := nameOf(alg, dir, base)
		if !ok {
			continue // not ours
		}
		f, err := c.inspect(key)
		switch {
		case err == nil:
			list = append(list, f)
		case errors.Is(err, errForget):
			// What can't be removed now is found again at the next start,
			// or replaced when the blob is stored again.
			if c.forget(key) {
				c.count.forgotten.Add(1)
			}
		default:
			// It may be readable another time, and a blob that is stored
			// anew replaces it.
			c.failed(fmt.Errorf("reading metadata of cached blob kept as %s: %w", key, err))
		}
	}
	return list, nil
}

// inspect reads the metadata of the blob that is kept under key.
func (c *Cache) inspect(key digest.Digest) (found, error) {
	p := pathOf(key)
	info, err := c.fs.Stat(p.data)
	if err != nil {
		return found{}, forgetMissing(err)
	}
	meta, err := c.fs.Stat(p.meta)
	if err != nil {
		return found{}, forgetMissing(err)
	}
	data, err := c.fs.ReadFile(p.meta, metadataLimit)
	if err != nil {
		return found{}, errForget
	}
	m, err := parseMetadata(data, key)
	if err != nil || m.Descriptor.Size != info.Size || !m.VerifiedAt.IsZero() && m.Inode != info.Inode {
		return found{}, errForget
	}
	return found{
		origin: m.Origin, desc: m.Descriptor,
		lastUsed: meta.ModTime.UnixNano(), allocated: info.Allocated,
		fetchedAt: m.FetchedAt, verifiedAt: m.VerifiedAt, inode: m.Inode,
	}, nil
}

// removeTemp removes the remains of a file that was being replaced.
func (c *Cache) removeTemp(alg, dir, name string) {
	base := strings.TrimSuffix(name, extTemp)
	key := digest.NewDigestFromEncoded(digest.Algorithm(alg), strings.TrimSuffix(base, path.Ext(base)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blobs[key] == nil {
		_ = c.fs.Remove(path.Join(dir, name))
	}
}

func forgetMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errForget
	}
	return err
}
