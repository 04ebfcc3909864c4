package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// Swept is what Sweep found and removed.
type Swept struct {
	Undesired int   // files that are none of the cache's
	Orphans   int   // data without metadata, maps without data
	Empty     int   // blobs whose data is gone
	Bytes     int64 // of disk space given back
}

// Sweep compares the folder with what the cache knows and removes what should not
// be there: files of others and the cache's own leftovers, unless they were changed
// within grace, and blobs without a data file. It stays in the folder and follows
// no links. Before the scan is done it does nothing.
func (c *Cache) Sweep(ctx context.Context, grace time.Duration) (Swept, error) {
	var s Swept
	if !c.Scanned() {
		return s, nil
	}
	w := &sweeper{c: c, ctx: ctx, now: time.Now(), grace: grace, swept: &s}
	err := errors.Join(w.empty(), w.top(), w.blobs())
	if err != nil {
		err = fmt.Errorf("sweeping the cache: %w", err)
	}
	return s, err
}

type sweeper struct {
	c     *Cache
	ctx   context.Context //nolint:containedctx // of the one call of Sweep
	now   time.Time
	grace time.Duration
	swept *Swept
}

// empty removes blobs whose data file is gone or was replaced.
func (w *sweeper) empty() error {
	for _, e := range w.c.entries() {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		e.mu.Lock()
		known, o, name := e.known && !e.dead, e.now.Load(), e.path().data
		e.mu.Unlock()
		if !known {
			continue
		}
		info, err := w.c.fs.Stat(name)
		switch {
		case err == nil && (o == nil || o.inode == info.Inode), err != nil && !errors.Is(err, fs.ErrNotExist):
			continue
		case !e.storedAs(name):
			continue // it was being renamed
		}
		if err := e.expel(); err != nil {
			return err
		}
		w.swept.Empty++
	}
	return nil
}

// storedAs reports whether the entry still has files, data by that name.
func (e *entry) storedAs(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known && !e.dead && e.path().data == name
}

// top looks at the names beside the folder of the blobs.
func (w *sweeper) top() error {
	names, err := w.c.fs.ReadDir(".")
	if err != nil {
		return err
	}
	ours := []string{blobsDir, quarantineDir, "lock", "probe"}
	for _, name := range names {
		if !slices.Contains(ours, name) {
			w.remove(name, &w.swept.Undesired)
		}
	}
	return nil
}

// blobs looks at the files of blobs.
func (w *sweeper) blobs() error {
	algorithms, err := w.c.fs.ReadDir(blobsDir)
	if err != nil {
		return err
	}
	for _, alg := range algorithms {
		dir := path.Join(blobsDir, alg)
		if !w.folder(dir) {
			continue
		}
		shards, err := w.c.fs.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, shard := range shards {
			if err := w.ctx.Err(); err != nil {
				return err
			}
			if err := w.shard(alg, path.Join(dir, shard)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *sweeper) shard(alg, dir string) error {
	if !w.folder(dir) {
		return nil
	}
	names, err := w.c.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		full := path.Join(dir, name)
		base := strings.TrimSuffix(name, extTemp)
		ext := path.Ext(base)
		key, ok := nameOf(alg, dir, strings.TrimSuffix(base, ext))
		if !ok || !slices.Contains(extensions, ext) {
			w.remove(full, &w.swept.Undesired)
			continue
		}
		// Whoever is about to make files of a blob has put it into the map before.
		w.c.mu.Lock()
		if w.c.blobs[key] == nil {
			w.remove(full, &w.swept.Orphans)
		}
		w.c.mu.Unlock()
	}
	return nil
}

// folder reports whether name is a folder, and removes what else it is.
func (w *sweeper) folder(name string) bool {
	_, err := w.c.fs.Stat(name)
	if errors.Is(err, disk.ErrFolder) {
		return true
	}
	w.remove(name, &w.swept.Undesired)
	return false
}

// remove removes a file that is old enough, or a link. A folder stays unless it is
// empty.
func (w *sweeper) remove(name string, counter *int) {
	info, err := w.c.fs.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && disk.Young(info.ModTime, w.now, w.grace) {
		return
	}
	if w.c.fs.Remove(name) == nil {
		*counter++
		w.swept.Bytes += info.Allocated
	}
}
