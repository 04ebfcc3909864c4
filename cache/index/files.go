package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// Names in the folder:
//
//	lock              held while a process uses the folder
//	ab/abcd....json   the link of that ID; its modification time is the last use
//	          ...tmp  one that is being replaced
const (
	lockFile = "lock"
	extLink  = ".json"
	extTemp  = ".tmp"

	scanParallel  = 16
	flushParallel = 16
	touchEvery    = time.Minute
)

func name(key id) string { return path.Join(key.String()[:2], key.String()+extLink) }

// idIn returns the ID of the link whose file in the folder shard has that name.
func idIn(shard, file string) (id, bool) {
	text, ok := strings.CutSuffix(file, extLink)
	if !ok {
		return id{}, false
	}
	key, ok := idOf(text)
	return key, ok && text[:2] == shard
}

// change is a link that the disk is to be told of.
type change struct {
	key    id
	number uint64 // of Index.dirty
	node   *node  // nil: remove the file
}

// Flush brings what changed to the disk. What fails is tried again with the next
// call.
func (i *Index) Flush() error {
	i.flushing.Lock()
	defer i.flushing.Unlock()
	i.mu.RLock()
	todo := make(map[string][]change) // by folder
	count := 0
	for key, number := range i.dirty {
		dir := path.Dir(name(key))
		todo[dir] = append(todo[dir], change{key, number, i.links[key]})
		count++
	}
	i.mu.RUnlock()
	var mu sync.Mutex
	var first error
	left := 0
	note := func(n int, err error) {
		mu.Lock()
		defer mu.Unlock()
		left += n
		if first == nil {
			first = err
		}
	}
	var group errgroup.Group
	group.SetLimit(flushParallel) // file systems make durable together what is asked for together
	for dir, list := range todo {
		group.Go(func() error {
			n, err := i.flushShard(dir, list)
			note(n, err)
			return nil
		})
	}
	_ = group.Wait()
	if first != nil {
		first = fmt.Errorf("saving %d of %d links: %w", left, count, first)
	}
	i.report(first)
	return first
}

// flushShard brings changes in one folder to the disk and returns how many remain
// to be made, and why.
func (i *Index) flushShard(dir string, list []change) (left int, err error) {
	made := false
	switch _, err := i.fs.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		if err := i.fs.MkdirAll(dir); err != nil {
			return len(list), err
		}
		made = true
	case !errors.Is(err, disk.ErrFolder):
		// Not ours, until Sweep removes it; a pipe would keep us waiting.
		return len(list), errors.Join(fmt.Errorf("%s is not a folder", dir), err)
	}
	saved := make([]change, 0, len(list))
	for _, c := range list {
		if e := i.save(c.key, c.node); e != nil {
			left, err = left+1, e
			continue
		}
		saved = append(saved, c)
	}
	e := i.fs.SyncDir(dir)
	if e == nil && made {
		e = i.fs.SyncDir(".")
	}
	if e != nil {
		return len(list), e
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range saved {
		if i.dirty[c.key] == c.number {
			delete(i.dirty, c.key)
		}
	}
	return left, err
}

// save brings the link of key to the disk, or its absence if n is nil.
func (i *Index) save(key id, n *node) error {
	file := name(key)
	if n == nil {
		if err := i.fs.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := encode(n.link)
	if err != nil {
		return err
	}
	if err := i.fs.WriteFile(file+extTemp, data); err != nil {
		_ = i.fs.Remove(file + extTemp)
		return err
	}
	n.touched = 0
	return i.fs.Rename(file+extTemp, file)
}

// saveUse brings the last uses to the disk. An error costs at most a link that
// looks unused after the next start.
func (i *Index) saveUse() {
	i.flushing.Lock()
	defer i.flushing.Unlock()
	i.mu.RLock()
	stale := make(map[id]*node)
	for key, n := range i.links {
		if _, dirty := i.dirty[key]; !dirty && n.lastUsed.Load() != n.touched {
			stale[key] = n
		}
	}
	i.mu.RUnlock()
	for key, n := range stale {
		used := n.lastUsed.Load()
		if i.fs.SetModTime(name(key), time.Unix(0, used)) == nil {
			n.touched = used
		}
	}
}

// read reads the link of key from its file, while the scan has not come to it.
func (i *Index) read(key id) *node {
	n, err := i.load(key)
	if err != nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.adopt(key, n)
}

// load returns what the file of key says. errDamaged says that it can't be used;
// other errors are the disk's.
func (i *Index) load(key id) (*node, error) {
	file := name(key)
	info, err := i.fs.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size > fileLimit {
		return nil, fmt.Errorf("%d bytes long: %w", info.Size, errDamaged)
	}
	data, err := i.fs.ReadFile(file, fileLimit)
	if err != nil {
		return nil, err
	}
	l, err := parse(data, key)
	if err != nil {
		return nil, errors.Join(errDamaged, err)
	}
	n := &node{link: interned(l), touched: info.ModTime.UnixNano()}
	n.lastUsed.Store(n.touched)
	return n, nil
}

var errDamaged = errors.New("the file is damaged")

// adopt enters what was read before the scan was done, unless something newer is
// known, and returns what is; i.mu is held.
func (i *Index) adopt(key id, n *node) *node {
	known := i.links[key]
	_, removed := i.removed[key]
	if known != nil || removed || i.scanned.Load() {
		return known
	}
	i.set(key, n)
	return n
}

// scan reads all files. Damaged ones are removed, and links beyond MaxLinks.
func (i *Index) scan(ctx context.Context) error {
	shards, err := i.fs.ReadDir(".")
	var group errgroup.Group
	group.SetLimit(scanParallel)
	for _, shard := range shards {
		if len(shard) != 2 || ctx.Err() != nil {
			continue
		}
		group.Go(func() error { return i.scanShard(ctx, shard) })
	}
	err = errors.Join(err, group.Wait())
	if ctx.Err() != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.scanned.Store(true)
	i.removed = nil
	i.bound(id{})
	return err
}

func (i *Index) scanShard(ctx context.Context, shard string) error {
	if _, err := i.fs.Stat(shard); !errors.Is(err, disk.ErrFolder) {
		return nil // not ours
	}
	names, err := i.fs.ReadDir(shard)
	if err != nil {
		return err
	}
	for _, file := range names {
		key, ok := idIn(shard, file)
		if !ok || ctx.Err() != nil {
			continue
		}
		n, err := i.load(key)
		i.mu.Lock()
		if err == nil {
			i.adopt(key, n)
		} else if errors.Is(err, errDamaged) {
			i.discard(key)
		}
		i.mu.Unlock()
	}
	return nil
}

// discard has a file removed that was found damaged, unless it is about to be
// replaced; i.mu is held.
func (i *Index) discard(key id) {
	if _, changing := i.dirty[key]; !changing && i.links[key] == nil {
		i.changed(key)
		i.damaged++
	}
}
