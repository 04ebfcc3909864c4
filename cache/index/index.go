package index

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
	link     Link         // never changed: a new link has a new node
	lastUsed atomic.Int64 // Unix nanoseconds
	touched  int64        // lastUsed as the file has it; under flushing

	before, after *node // that lead to the same digest; under Index.mu
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
	scanned atomic.Bool // set under mu

	flushing sync.Mutex // one writer of files; before mu

	mu      sync.RWMutex
	links   map[id]*node
	digests map[digest.Digest]*node // the first of those that lead there
	// dirty has what is to be written or, if there is no link, removed. It stays
	// until that is durable, with a number that tells a later change of the
	// same link.
	dirty   map[id]uint64
	changes uint64
	// removed has the links that were removed before the scan was done: whoever
	// has read the file before must not bring them back.
	removed map[id]struct{}
	damaged int   // files found damaged, since the last Sweep
	failed  error // why the last flush did not succeed
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
	lock, err := files.Lock(lockFile)
	if errors.Is(err, disk.ErrLocked) {
		return nil, ErrInUse
	} else if err != nil {
		return nil, err
	}
	return &Index{
		cfg: cfg.withDefaults(), fs: files, lock: lock,
		links:   make(map[id]*node),
		digests: make(map[digest.Digest]*node),
		dirty:   make(map[id]uint64),
		removed: make(map[id]struct{}),
	}, nil
}

// Close brings what changed to the disk and releases the folder. Run has ended.
func (i *Index) Close() error {
	err := i.Flush()
	i.saveUse()
	return errors.Join(err, i.fs.Close(), i.lock.Close())
}

// Run reads what the folder holds and brings changes to the disk, until ctx ends.
// It is called once.
func (i *Index) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := i.scan(ctx); err != nil && ctx.Err() == nil {
			i.report(fmt.Errorf("scanning the index: %w", err))
		}
	})
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

// Lookup returns the link of k. Its header and descriptor are shared and not to be
// changed.
func (i *Index) Lookup(k Key) (Link, bool) {
	key := k.sum()
	i.mu.RLock()
	n := i.links[key]
	i.mu.RUnlock()
	if n == nil && !i.scanned.Load() {
		n = i.read(key)
	}
	if n == nil {
		return Link{}, false
	}
	return n.get(), true
}

// Put makes l the link of its key; its header and descriptor belong to the index
// from then on. It refuses a link that the disk would not give back as it is: one
// that is not text, has an invalid digest or takes more than 64 KiB.
func (i *Index) Put(l Link) error {
	if err := check(l); err != nil {
		return fmt.Errorf("linking %.100q of %.100q: %w", l.Key.Reference, l.Key.Repository, err)
	}
	if l.LastUsed.IsZero() {
		l.LastUsed = time.Now()
	}
	n := &node{link: interned(l)}
	n.lastUsed.Store(l.LastUsed.UnixNano())
	key := l.Key.sum()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.set(key, n)
	i.changed(key)
	i.bound(key)
	return nil
}

// changed notes that the disk has to be told of key; i.mu is held.
func (i *Index) changed(key id) {
	i.changes++
	i.dirty[key] = i.changes
}

// set replaces the link of key; nil removes it. i.mu is held.
func (i *Index) set(key id, n *node) {
	if old := i.links[key]; old != nil {
		delete(i.links, key)
		i.unchain(old)
	}
	if n == nil {
		if !i.scanned.Load() {
			i.removed[key] = struct{}{}
		}
		return
	}
	i.links[key] = n
	if d := n.link.Descriptor.Digest; d != "" {
		if n.after = i.digests[d]; n.after != nil {
			n.after.before = n
		}
		i.digests[d] = n
	}
}

// unchain takes n out of those that lead to its digest; i.mu is held.
func (i *Index) unchain(n *node) {
	d := n.link.Descriptor.Digest
	switch {
	case n.before != nil:
		n.before.after = n.after
	case i.digests[d] == n && n.after != nil:
		i.digests[d] = n.after
	case i.digests[d] == n:
		delete(i.digests, d)
	}
	if n.after != nil {
		n.after.before = n.before
	}
	n.before, n.after = nil, nil
}

// sample is how many links are looked at to find one that may go.
const sample = 16

// bound drops links other than keep while there are too many, each time the
// longest unused of a few: maps are iterated from a random place on. i.mu is held.
func (i *Index) bound(keep id) {
	for len(i.links) > i.cfg.MaxLinks {
		var oldest id
		var found *node
		seen := 0
		for key, n := range i.links {
			if key != keep && (found == nil || n.lastUsed.Load() < found.lastUsed.Load()) {
				oldest, found = key, n
			}
			if seen++; seen == sample {
				break
			}
		}
		if found == nil {
			return
		}
		i.set(oldest, nil)
		i.changed(oldest)
	}
}

// Touch says that the link of k was used.
func (i *Index) Touch(k Key) {
	key := k.sum()
	i.mu.RLock()
	defer i.mu.RUnlock()
	if n := i.links[key]; n != nil {
		n.lastUsed.Store(time.Now().UnixNano())
	}
}

// Remove removes the link of k, and reports whether there was one that the index
// knew of.
func (i *Index) Remove(k Key) bool {
	key := k.sum()
	i.mu.Lock()
	defer i.mu.Unlock()
	known := i.links[key] != nil
	i.set(key, nil)
	if known || !i.scanned.Load() {
		i.changed(key)
	}
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
	for n := i.digests[d]; n != nil; n = n.after {
		all = append(all, n.get())
	}
	return all
}

// Len returns how many links there are.
func (i *Index) Len() int {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.links)
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
