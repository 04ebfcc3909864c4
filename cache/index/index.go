package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// ErrInUse says that another process uses the index's folder.
var ErrInUse = errors.New("index folder is in use by another process")

// Config configures an Index. The zero value is ready for use.
type Config struct {
	// MaxLinks bounds the links; 500 000 if 0. Of more, those go that were not
	// used for long.
	MaxLinks int
	// FlushEvery is how long a change may take to be durable; 1 s if 0.
	FlushEvery time.Duration
	// OnError is told when the disk starts to fail, once until it works again.
	// It must not block. Optional.
	OnError func(error)
}

func (c Config) withDefaults() Config {
	if c.MaxLinks == 0 {
		c.MaxLinks = 500_000
	}
	if c.FlushEvery == 0 {
		c.FlushEvery = time.Second
	}
	return c
}

// node is a link in memory. What the disk has yet to be told is in Index.dirty.
type node struct {
	link     Link
	lastUsed atomic.Int64 // Unix nanoseconds
	touched  int64        // lastUsed as the file has it; under flushing
}

func (n *node) get() Link {
	l := n.link
	l.LastUsed = time.Unix(0, n.lastUsed.Load())
	return l
}

// Index is a set of links. Its methods may be called in parallel. Changes take
// effect at once and are durable after FlushEvery while it runs; a crash before that
// loses the change and nothing else.
type Index struct {
	cfg     Config
	fs      disk.FS
	lock    io.Closer
	scanned atomic.Bool

	flushing sync.Mutex // one writer of files; before mu

	mu      sync.RWMutex
	links   map[string]*node // by Key.ID
	digests map[digest.Digest]map[string]struct{}
	dirty   map[string]bool // by ID: to be written, or, if there is no link, removed
	failed  error           // why the last flush did not succeed
}

// Open opens the index in the folder dir, which is made when missing. What is in
// there is read by Run; until then a link is looked for by its name. Close must be
// called at the end. It fails with ErrInUse when another process has the folder.
func Open(dir string, cfg Config) (*Index, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making index folder: %w", err)
	}
	files, err := disk.OpenOS(dir)
	if err != nil {
		return nil, fmt.Errorf("opening index folder: %w", err)
	}
	i, err := open(files, cfg)
	if err != nil {
		files.Close()
		return nil, fmt.Errorf("opening index %s: %w", dir, err)
	}
	return i, nil
}

func open(files disk.FS, cfg Config) (*Index, error) {
	lock, err := files.Lock("lock")
	if errors.Is(err, disk.ErrLocked) {
		return nil, ErrInUse
	} else if err != nil {
		return nil, err
	}
	return &Index{
		cfg: cfg.withDefaults(), fs: files, lock: lock,
		links:   make(map[string]*node),
		digests: make(map[digest.Digest]map[string]struct{}),
		dirty:   make(map[string]bool),
	}, nil
}

// Close brings what changed to the disk and releases the folder. Run has ended.
func (i *Index) Close() error {
	return errors.Join(i.Flush(), i.fs.Close(), i.lock.Close())
}

// Run reads what the folder holds and then brings changes to the disk, until ctx
// ends. It is called once.
func (i *Index) Run(ctx context.Context) error {
	if err := i.scan(ctx); err != nil && ctx.Err() == nil {
		i.report(fmt.Errorf("scanning the index: %w", err))
	}
	i.scanned.Store(true)
	ticker := time.NewTicker(i.cfg.FlushEvery)
	defer ticker.Stop()
	lastTouch := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			_ = i.Flush() // told by report, and tried again
			if now.Sub(lastTouch) >= touchEvery {
				i.saveUse()
				lastTouch = now
			}
		}
	}
}

// Scanned reports whether the index knows all that its folder holds.
func (i *Index) Scanned() bool { return i.scanned.Load() }

// Lookup returns the link of k.
func (i *Index) Lookup(k Key) (Link, bool) {
	id := k.ID()
	i.mu.RLock()
	n := i.links[id]
	_, changed := i.dirty[id]
	i.mu.RUnlock()
	if n == nil && !changed && !i.scanned.Load() {
		n = i.read(id)
	}
	if n == nil {
		return Link{}, false
	}
	return n.get(), true
}

// Put makes l the link of its key.
func (i *Index) Put(l Link) error {
	if l.Descriptor.Digest != "" {
		if err := l.Descriptor.Digest.Validate(); err != nil {
			return fmt.Errorf("linking %s of %s: %w", l.Key.Reference, l.Key.Repository, err)
		}
	}
	n := &node{link: l}
	if l.LastUsed.IsZero() {
		l.LastUsed = time.Now()
	}
	n.lastUsed.Store(l.LastUsed.UnixNano())
	id := l.Key.ID()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.set(id, n)
	i.dirty[id] = true
	if len(i.links) > i.cfg.MaxLinks {
		i.dropOne(id)
	}
	return nil
}

// set replaces the link of id; nil removes it. i.mu is held.
func (i *Index) set(id string, n *node) {
	if old := i.links[id]; old != nil {
		d := old.link.Descriptor.Digest
		if delete(i.digests[d], id); len(i.digests[d]) == 0 {
			delete(i.digests, d)
		}
		delete(i.links, id)
	}
	if n == nil {
		return
	}
	i.links[id] = n
	if d := n.link.Descriptor.Digest; d != "" {
		if i.digests[d] == nil {
			i.digests[d] = make(map[string]struct{}, 1)
		}
		i.digests[d][id] = struct{}{}
	}
}

// sample is how many links are looked at to find one that may go.
const sample = 16

// dropOne removes the longest unused of a few links other than keep: maps are
// iterated from a random place on. i.mu is held.
func (i *Index) dropOne(keep string) {
	oldest, seen := "", 0
	for id, n := range i.links {
		if id != keep && (oldest == "" || n.lastUsed.Load() < i.links[oldest].lastUsed.Load()) {
			oldest = id
		}
		if seen++; seen == sample {
			break
		}
	}
	if oldest != "" {
		i.set(oldest, nil)
		i.dirty[oldest] = true
	}
}

// Touch says that the link of k was used.
func (i *Index) Touch(k Key) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if n := i.links[k.ID()]; n != nil {
		n.lastUsed.Store(time.Now().UnixNano())
	}
}

// Remove removes the link of k, and reports whether there was one that the index
// knew of.
func (i *Index) Remove(k Key) bool {
	id := k.ID()
	i.mu.Lock()
	defer i.mu.Unlock()
	known := i.links[id] != nil
	i.set(id, nil)
	i.dirty[id] = true
	return known
}

// Links returns all links, in no order.
func (i *Index) Links() []Link {
	i.mu.RLock()
	defer i.mu.RUnlock()
	all := make([]Link, 0, len(i.links))
	for _, n := range i.links {
		all = append(all, n.get())
	}
	return all
}

// To returns the links that lead to d, in no order.
func (i *Index) To(d digest.Digest) []Link {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var all []Link
	for id := range i.digests[d] {
		all = append(all, i.links[id].get())
	}
	return all
}

// Len returns how many links there are.
func (i *Index) Len() int {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.links)
}

// Flush brings what changed to the disk. What fails is tried again with the next
// call.
func (i *Index) Flush() error {
	i.flushing.Lock()
	defer i.flushing.Unlock()
	i.mu.Lock()
	todo := i.dirty
	i.dirty = make(map[string]bool)
	nodes := make(map[string]*node, len(todo))
	for id := range todo {
		nodes[id] = i.links[id]
	}
	i.mu.Unlock()
	var errs []error
	dirs := make(map[string]bool)
	for id, n := range nodes {
		if err := i.save(id, n); err != nil {
			errs = append(errs, err)
			i.mu.Lock()
			i.dirty[id] = true
			i.mu.Unlock()
			continue
		}
		dirs[path.Dir(name(id))] = true
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := i.fs.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		i.report(nil)
		return nil
	}
	err := fmt.Errorf("saving %d of %d links: %w", len(errs), len(todo), errs[0])
	i.report(err)
	return err
}

// report remembers how the disk does, and tells of an error if it is the first.
func (i *Index) report(err error) {
	i.mu.Lock()
	first := i.failed == nil && err != nil
	i.failed = err
	i.mu.Unlock()
	if first && i.cfg.OnError != nil {
		i.cfg.OnError(err)
	}
}
