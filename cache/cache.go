package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/disk"
	"github.com/reprise-containers/reprise/cache/internal/presence"
	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/remote/blob"
)

// ErrInUse says that another process uses the cache's folder.
var ErrInUse = errors.New("cache folder is in use by another process")

// runKey names what the eviction policy deals in: one run of a blob, or, with
// run allRuns, all of a blob whose map was not loaded since the start. The
// policy weighs the bytes present, not the disk space they take,
// so that reading all of a run again counts as one use of it.
type runKey struct {
	entry uint64 // entry.rank
	run   int32
}

const allRuns = -1

// Cache is a disk cache for ranges of blobs. All its methods and those of the
// blobs it makes may be called in parallel.
//
// Locks, outermost first: checkpointing, evicting, opened.writing, entry.persisting,
// entry.mu, mu, policyMu; queue.mu and opened.queueing are innermost. None of
// them is held while the network is waited for, and the hit path takes none
// (it tries policyMu).
type Cache struct {
	cfg  Config
	fs   disk.FS
	boot string // disk.FS.Boot
	lock io.Closer

	mu      sync.Mutex               // guards the fields below
	blobs   map[digest.Digest]*entry // by keyOf; until its files are renamed, a verified one has two names
	ranked  map[uint64]*entry        // by entry.rank
	lastID  uint32
	loaded  map[*entry]struct{} // entries with an open state
	closing bool

	policyMu sync.Mutex
	policy   policy.Policy[runKey]

	checkpointing sync.Mutex // so that one who waits for a checkpoint finds everything durable

	evicting sync.Mutex // one eviction at a time
	cold     *entry     // whole blob being evicted piece by piece; under evicting

	quarantined int64 // bytes of used that lie in quarantine; under evicting

	queue queue
	space space
	faults
	used  atomic.Int64 // bytes of disk space accounted for
	clock atomic.Int64 // Unix nanoseconds, about a second old at most
	dirty atomic.Int64 // bytes stored since the last checkpoint
	wake  chan struct{}
	stop  chan struct{}

	scanned atomic.Bool
	wg      sync.WaitGroup
	count   counters
}

// Open opens the cache in cfg.Dir and reads the metadata of what it holds.
// Damaged files are removed, those it does not know left alone. It fails with ErrInUse when
// another process has the folder. Close must be called at the end.
func Open(cfg Config) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making cache folder: %w", err)
	}
	files, err := disk.OpenOS(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening cache folder: %w", err)
	}
	c, err := open(cfg, files)
	if err != nil {
		files.Close()
		return nil, fmt.Errorf("opening cache %s: %w", cfg.Dir, err)
	}
	return c, nil
}

func open(cfg Config, files disk.FS) (*Cache, error) {
	cfg = cfg.withDefaults()
	rules, err := policy.New[runKey](cfg.Policy)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		cfg:    cfg,
		fs:     files,
		blobs:  make(map[digest.Digest]*entry),
		ranked: make(map[uint64]*entry),
		loaded: make(map[*entry]struct{}),
		policy: rules,
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		boot:   files.Boot(),
	}
	c.clock.Store(time.Now().UnixNano())
	c.queue.init(cfg.QueueBytes)
	c.space.init(cfg.MinFreeBytes)
	c.notify = cfg.OnError

	c.lock, err = files.Lock("lock")
	if errors.Is(err, disk.ErrLocked) {
		return nil, ErrInUse
	} else if err != nil {
		return nil, err
	}
	if err = c.probe(); err == nil && !cfg.ScanInBackground {
		err = c.scan()
	}
	if err != nil {
		c.lock.Close()
		return nil, err
	}
	c.measureSpace()
	c.countQuarantine()
	if cfg.ScanInBackground {
		c.wg.Go(c.scanBehind)
	}
	if cfg.WholeBlobs {
		c.wg.Go(c.draftAll)
	}
	c.wg.Go(c.storeAll)
	c.wg.Go(c.maintain)
	return c, nil
}

// probe refuses file systems that can't give back a part of a file, on which
// nothing could ever be evicted. A disk that is full or broken is no reason to
// refuse: what it holds can still be read.
func (c *Cache) probe() error {
	const name = "probe"
	f, err := c.fs.Open(name, true)
	if err != nil {
		return nil
	}
	defer func() { _ = c.fs.Remove(name) }()
	defer f.Close()
	if f.Truncate(presence.Block) != nil {
		return nil
	}
	if err := f.Punch(0, presence.Block); errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("its file system can't punch holes into files, use ext4, xfs, btrfs or tmpfs: %w", err)
	}
	return nil
}

// Blob is BlobFrom for a cache that has only one origin.
func (c *Cache) Blob(b blob.Blob) blob.Blob { return c.BlobFrom("", b) }

// BlobFrom returns b read through the cache, which is keyed by b's digest and
// by origin: who is trusted to answer with the bytes of that digest, such as a
// registry. A range can't be checked against the digest, so a blob is never
// served with what another origin answered under the same one.
//
// The result implements blob.Presence, and Discard(off, n int64) to drop bytes
// that turned out to be damaged. A blob is passed through uncached when its
// descriptor has no valid digest or a size over 1 TiB.
func (c *Cache) BlobFrom(origin string, b blob.Blob) blob.Blob {
	desc := b.Descriptor()
	if desc.Digest.Validate() != nil || b.Size() <= 0 || b.Size() > presence.MaxSize {
		return b
	}
	if c.cfg.WholeBlobs && origin == "" {
		return b // that is the place of what is verified
	}
	return &cached{c: c, inner: b, desc: desc, origin: origin}
}

// find returns the entry of desc from origin, made if need be, or one that has
// another size than desc says; nil when the cache is closing.
func (c *Cache) find(origin string, desc ocispec.Descriptor) *entry {
	key := keyOf(origin, desc.Digest)
	if e := c.lookup(key); e != nil {
		return e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil
	}
	e := c.blobs[key]
	if e == nil {
		e = c.addLocked(origin, desc)
	}
	return e
}

// lookup returns the entry that is kept under key, nil if there is none. As long
// as the scan has not seen everything, it looks at the blob's own files.
func (c *Cache) lookup(key digest.Digest) *entry {
	c.mu.Lock()
	e, closing := c.blobs[key], c.closing
	c.mu.Unlock()
	if closing {
		return nil
	}
	if e != nil || c.scanned.Load() {
		return e
	}
	f, err := c.inspect(key)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.blobs[key]; e == nil && !c.closing {
		e = c.adoptLocked(f)
	}
	return e
}

// addLocked makes an entry; c.mu is held or c not yet shared.
func (c *Cache) addLocked(origin string, desc ocispec.Descriptor) *entry {
	c.lastID++
	key := keyOf(origin, desc.Digest)
	e := &entry{c: c, id: c.lastID, rank: rankOf(desc.Digest), origin: origin, source: origin, desc: desc, key: key, stored: key}
	e.lastUsed.Store(c.clock.Load())
	c.blobs[key] = e
	for c.ranked[e.rank] != nil {
		e.rank++ // the same blob from another origin
	}
	c.ranked[e.rank] = e
	return e
}

// Sync waits until everything fetched before the call is stored or dropped,
// and makes it durable. It fails with ErrClosed after Close.
func (c *Cache) Sync(ctx context.Context) error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return ErrClosed
	}
	c.wg.Add(1) // Close waits for it
	c.mu.Unlock()
	defer c.wg.Done()
	done := make(chan struct{})
	if !c.queue.barrier(done) {
		return ErrClosed
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.checkpoint()
}

// ErrClosed says that the cache was closed.
var ErrClosed = errors.New("cache is closed")

// Close stores what is queued, makes it durable and releases the folder. Blobs
// of the cache then read from their origin. Closing again does nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	again := c.closing
	c.closing = true
	c.mu.Unlock()
	if again {
		return nil
	}
	c.queue.close()
	close(c.stop)
	c.wg.Wait()
	err := c.checkpoint()
	for _, e := range c.loadedEntries() {
		e.shut()
	}
	// The files first: a read that is late must not touch what the next owner
	// of the lock makes of them.
	return errors.Join(err, c.fs.Close(), c.lock.Close())
}

// loadedEntries returns the entries that are open now.
func (c *Cache) loadedEntries() []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*entry, 0, len(c.loaded))
	for e := range c.loaded {
		list = append(list, e)
	}
	return list
}
