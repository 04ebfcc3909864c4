package index

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
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
	extLink = ".json"
	extTemp = ".tmp"

	scanParallel = 16
	touchEvery   = time.Minute
)

func name(id string) string { return path.Join(id[:2], id+extLink) }

// save brings the link of id to the disk, or its absence if n is nil.
func (i *Index) save(id string, n *node) error {
	file := name(id)
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
	if err := i.fs.MkdirAll(path.Dir(file)); err != nil {
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
	stale := make(map[string]*node)
	for id, n := range i.links {
		if n.lastUsed.Load() != n.touched {
			stale[id] = n
		}
	}
	i.mu.RUnlock()
	for id, n := range stale {
		used := n.lastUsed.Load()
		if i.fs.SetModTime(name(id), time.Unix(0, used)) == nil {
			n.touched = used
		}
	}
}

// read reads the link of id from its file, while the scan has not come to it.
func (i *Index) read(id string) *node {
	n, err := i.load(id)
	if err != nil {
		return nil
	}
	return i.adopt(id, n)
}

// load returns what the file of id says. An error that is not the disk's says that
// it can't be used.
func (i *Index) load(id string) (*node, error) {
	info, err := i.fs.Stat(name(id))
	if err != nil {
		return nil, err
	}
	data, err := i.fs.ReadFile(name(id), fileLimit)
	if err != nil {
		return nil, err
	}
	l, err := parse(data, id)
	if err != nil {
		return nil, errors.Join(errDamaged, err)
	}
	n := &node{link: l, touched: info.ModTime.UnixNano()}
	n.lastUsed.Store(n.touched)
	return n, nil
}

var errDamaged = errors.New("the file is damaged")

// adopt enters what was read, unless something newer is known, and returns what is.
func (i *Index) adopt(id string, n *node) *node {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known := i.links[id]; known != nil || i.dirty[id] {
		return known
	}
	i.set(id, n)
	return n
}

// scan reads all files. Damaged ones are removed.
func (i *Index) scan(ctx context.Context) error {
	shards, err := i.fs.ReadDir(".")
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(scanParallel)
	for _, shard := range shards {
		if len(shard) != 2 || ctx.Err() != nil {
			continue
		}
		group.Go(func() error { return i.scanShard(ctx, shard) })
	}
	return group.Wait()
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
		id := strings.TrimSuffix(file, extLink)
		if ctx.Err() != nil || !valid(id) || id[:2] != shard || id == file {
			continue
		}
		n, err := i.load(id)
		switch {
		case err == nil:
			i.adopt(id, n)
		case errors.Is(err, errDamaged):
			i.mu.Lock()
			if i.links[id] == nil {
				i.dirty[id] = true // to be removed
			}
			i.mu.Unlock()
		}
	}
	return nil
}

// Swept is what Sweep found.
type Swept struct {
	Undesired int // files removed that are none of the index's
	Restored  int // links whose file was gone
}

// Sweep removes files that are not the index's and were not changed within grace,
// and has links saved again whose file is gone. It stays in the folder and follows
// no links of the file system. Before the scan is done it does nothing.
func (i *Index) Sweep(ctx context.Context, grace time.Duration) (Swept, error) {
	var s Swept
	if !i.Scanned() {
		return s, nil
	}
	present, err := i.sweepFiles(ctx, grace, &s)
	if err != nil {
		return s, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, n := range i.links {
		if !present[id] && !i.dirty[id] && time.Since(time.Unix(0, n.lastUsed.Load())) > grace {
			i.dirty[id] = true
			s.Restored++
		}
	}
	return s, nil
}

// sweepFiles returns the IDs of the links that have a file.
func (i *Index) sweepFiles(ctx context.Context, grace time.Duration, s *Swept) (map[string]bool, error) {
	present := make(map[string]bool)
	top, err := i.fs.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, shard := range top {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := i.fs.Stat(shard); len(shard) != 2 || !errors.Is(err, disk.ErrFolder) {
			if shard != "lock" {
				i.removeForeign(shard, grace, s)
			}
			continue
		}
		names, err := i.fs.ReadDir(shard)
		if err != nil {
			return nil, err
		}
		for _, file := range names {
			id := strings.TrimSuffix(file, extLink)
			if _, err := i.fs.Stat(path.Join(shard, file)); err == nil && id != file && valid(id) && id[:2] == shard {
				present[id] = true
				continue
			}
			i.removeForeign(path.Join(shard, file), grace, s)
		}
	}
	return present, nil
}

// removeForeign removes a file that is old enough, or a link. A time in the far
// future is not young: the clock was wrong, then or now.
func (i *Index) removeForeign(file string, grace time.Duration, s *Swept) {
	info, err := i.fs.Stat(file)
	if age := time.Since(info.ModTime); err == nil && age < grace && age > -24*time.Hour || errors.Is(err, fs.ErrNotExist) {
		return
	}
	// Not while a link is being saved, whose temporary file this may be.
	i.flushing.Lock()
	defer i.flushing.Unlock()
	if i.fs.Remove(file) == nil {
		s.Undesired++
	}
}
