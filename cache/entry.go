package cache

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/cache/internal/disk"
	"github.com/reprise-containers/reprise/cache/internal/presence"
)

// What an entry is charged for besides its blocks: its files and folder slots,
// and each run's place in the map. 512 bytes have room for the run's first 30
// ranges, twice, because the map is written beside the one it replaces. What
// more ranges take is little beside their blocks: 0.5 % if every second
// compressed block is held, 6 % at most, see package presence.
const (
	blobOverhead = 2 * presence.Block
	runOverhead  = 512
)

// loadRetry is how long reads go past the cache after a blob's files could not
// be opened for a reason that may pass.
const loadRetry = 5 * time.Second

// entry is a blob the cache knows, whether or not anything of it is open.
type entry struct {
	c      *Cache
	id     uint32
	rank   uint64 // what the policy knows it as, see rankOf
	origin string
	source string // origin, also once it is verified
	desc   ocispec.Descriptor
	key    digest.Digest // of both, see keyOf; under c.mu and mu once it is verified

	// stored is what the files are named after, see path. It changes under
	// persisting and mu, when the files of a verified blob are renamed.
	stored digest.Digest

	now      atomic.Pointer[opened] // nil while idle; changes under mu
	lastUsed atomic.Int64           // Unix nanoseconds, coarse
	cost     atomic.Int64           // its share of Cache.used, bytes

	// persisting is held by the one who writes the map file, and by the one
	// who makes a new data file, which no older map may speak of.
	persisting sync.Mutex

	mu       sync.Mutex
	dead     bool  // no longer in Cache.blobs, find it again
	known    bool  // it has files
	listed   bool  // its runs are in the policy one by one
	touched  int64 // lastUsed as the metadata file has it
	metadata bool  // the metadata file is written
	retryAt  int64 // Unix nanoseconds before which loading is not tried

	fetchedAt  time.Time // of the first byte
	verifiedAt time.Time // zero: the digest was not checked
	inode      uint64    // of the data file, as the metadata of a verified blob has it
	verified   atomic.Bool
}

// path returns the names of the entry's files.
func (e *entry) path() paths { return pathOf(e.stored) }

// opened is the open state of an entry.
type opened struct {
	e    *entry
	held *presence.Map

	// file is nil until something is stored. It is set before held has
	// anything, so whoever finds something there may use it.
	file  disk.File
	made  atomic.Bool // file is there, for those who can't look
	inode uint64

	// gen counts evictions. A reader that finds it changed after reading the
	// file may have read a hole.
	gen atomic.Uint64
	// users counts reads that fetch and stores that wait. It is raised from
	// zero only under entry.mu; above zero the state stays open.
	users atomic.Int64
	// holders counts those of the users that are Contents. An eviction spares
	// what they hold; it does not spare what a checkpoint happens to be at.
	holders atomic.Int64
	dirty   atomic.Bool // held has changed since the last checkpoint

	undrafted atomic.Int64 // bytes stored since the last draft

	// evicted is set once the blob was removed as a whole. Whoever is the last
	// to release it buries it: the file is closed, its space, mourned, counts
	// no more.
	evicted atomic.Bool
	buried  sync.Once
	mourned int64

	writing sync.Mutex // changes of held, holes, file
	gone    bool       // files were lost, store nothing more; under writing

	queueing sync.Mutex
	queued   map[int][]*task // by run: fetched, not yet stored
}

var errDead = errors.New("entry was removed")

// acquire returns the open state with users raised, loading it if need be.
// forEviction leaves the entry as it is in the eyes of the policy. It fails
// with errDead when the caller has to find the entry again.
func (e *entry) acquire(forEviction bool) (*opened, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return nil, errDead
	}
	o := e.now.Load()
	if o == nil {
		var err error
		if o, err = e.load(); err != nil {
			return nil, err
		}
	}
	if !forEviction && !e.listed {
		e.list(o)
	}
	o.users.Add(1)
	return o, nil
}

var errRetryLater = errors.New("blob's cache files could not be opened a moment ago")

// load opens the entry's files. Files that are missing, damaged or do not
// belong together are removed and the entry starts empty; e.mu is held.
func (e *entry) load() (*opened, error) {
	c := e.c
	now := c.clock.Load()
	if wait := e.retryAt - now; wait > 0 && wait <= int64(loadRetry) { // unless the clock was set back
		return nil, errRetryLater
	}
	o := &opened{e: e, queued: make(map[int][]*task)}
	var err error
	if e.known {
		err = o.openFiles()
		if errors.Is(err, errForget) {
			c.count.forgotten.Add(1)
			if err = e.removeFiles(); err == nil && e.verified.Load() {
				// What comes next under its digest was not verified.
				e.unlist()
				return nil, errDead
			}
		}
	}
	if err == nil && o.held == nil {
		o.held = presence.New(e.desc.Size)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		err = ErrClosed
	}
	if err != nil {
		if o.file != nil {
			o.file.Close()
		}
		e.retryAt = now + int64(loadRetry)
		return nil, err
	}
	c.loaded[e] = struct{}{}
	e.now.Store(o)
	if len(c.loaded) > c.cfg.MaxOpen {
		c.poke()
	}
	return o, nil
}

var errForget = errors.New("cache files are missing or damaged")

// openFiles opens data and map. errForget says that they are not to be used.
func (o *opened) openFiles() error {
	e := o.e
	file, err := e.c.fs.Open(e.path().data, false)
	if errors.Is(err, fs.ErrNotExist) {
		return errForget
	} else if err != nil {
		return err
	}
	held, info, err := e.readMap(file)
	if err != nil {
		file.Close()
		return err
	}
	o.file, o.held, o.inode = file, held, info.Inode
	o.made.Store(true)
	if !e.metadata && !e.verified.Load() {
		o.dirty.Store(true) // readDraft has found more than is durable
	}
	e.sweep(o, info)
	return nil
}

func (e *entry) readMap(file disk.File) (*presence.Map, disk.Info, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, info, err
	}
	if info.Size != e.desc.Size {
		return nil, info, errForget
	}
	if e.verified.Load() {
		// All of it was there before the metadata said so.
		if info.Inode != e.inode {
			return nil, info, errForget
		}
		held := presence.New(e.desc.Size)
		held.Set(0, e.desc.Size)
		return held, info, nil
	}
	if held := e.readDraft(info.Inode); held != nil {
		return held, info, nil
	}
	data, err := e.c.fs.ReadFile(e.path().ranges, presence.FileLimit(e.desc.Size))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, info, errForget
	} else if err != nil {
		return nil, info, err
	}
	held, err := presence.Parse(data, e.identity(info.Inode))
	if err != nil {
		return nil, info, errForget
	}
	return held, info, nil
}

func (e *entry) identity(inode uint64) presence.Identity {
	return presence.Identity{Digest: e.stored.String(), Size: e.desc.Size, Inode: inode}
}

// sweep gives back disk space of blocks that the map has nothing of, left by a
// crash between a store and its checkpoint.
func (e *entry) sweep(o *opened, info disk.Info) {
	var blocks int64
	for _, b := range o.held.Runs() {
		blocks += b.Blocks()
	}
	// File systems count their own index blocks too.
	if info.Allocated <= blocks*presence.Block*65/64+16*presence.Block {
		return
	}
	end := e.desc.Size
	for off := int64(0); off < end; {
		here, until := o.held.Extent(off, end)
		if !here {
			from, to := roundUp(off, presence.Block), until
			if until < end {
				to = until / presence.Block * presence.Block
			}
			if from < to && o.file.Punch(from, to-from) != nil {
				return
			}
		}
		off = until
	}
}

// list replaces the entry as a whole by its runs in the policy and in the
// account; e.mu is held.
func (e *entry) list(o *opened) {
	c := e.c
	e.listed = true
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	if !c.cfg.WholeBlobs {
		c.policy.Remove(runKey{e.rank, allRuns})
	}
	var cost int64
	for i, b := range o.held.Runs() {
		if !c.cfg.WholeBlobs {
			c.policy.Add(runKey{e.rank, int32(i)}, b.Content())
		}
		cost += b.Blocks()*presence.Block + runOverhead
	}
	if o.file != nil {
		cost += blobOverhead
	}
	e.charge(cost - e.cost.Load())
}

// charge adds n bytes to the account, which may be negative.
func (e *entry) charge(n int64) {
	e.cost.Add(n)
	e.c.used.Add(n)
}

// release lowers users.
func (o *opened) release() {
	if o.users.Add(-1) == 0 && o.evicted.Load() {
		o.bury()
	}
}

// shut closes the entry's files; reads under way fall back to the origin.
func (e *entry) shut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.now.Swap(nil); o != nil {
		e.touchMetadata()
		e.closeFiles(o)
	}
}

func (e *entry) closeFiles(o *opened) {
	e.c.mu.Lock()
	delete(e.c.loaded, e)
	e.c.mu.Unlock()
	if o.file != nil {
		o.file.Close()
	}
}

// idle closes the entry if nobody uses it and it is on disk as in memory, and
// removes it for good if nothing is left of it. It reports whether it did.
func (e *entry) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.now.Load()
	if o == nil || o.users.Load() > 0 || o.dirty.Load() {
		return false
	}
	empty := o.held.Empty()
	if empty && e.known && e.removeFiles() != nil {
		return false
	}
	e.now.Store(nil)
	e.touchMetadata()
	e.closeFiles(o)
	if empty {
		e.unlist()
	}
	return true
}

// unlist takes the entry out of the cache; e.mu is held.
func (e *entry) unlist() {
	e.dead = true
	c := e.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range []digest.Digest{e.key, e.stored} {
		if c.blobs[key] == e {
			delete(c.blobs, key)
		}
	}
	delete(c.ranked, e.rank)
}

// unit returns what the policy knows the run of e as that has the byte at off.
func (e *entry) unit(off int64) runKey {
	if e.c.cfg.WholeBlobs {
		return runKey{e.rank, allRuns}
	}
	return runKey{e.rank, int32(off / presence.Run)}
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
