package index

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/reprise-containers/reprise/cache/internal/disk"
)

// Swept is what Sweep found.
type Swept struct {
	Undesired int // files removed that are none of the index's
	Damaged   int // link files that could not be used, since the last Sweep
	Restored  int // links whose file was gone
	Found     int // links that were not known, because their file could not be read before
}

// Sweep removes files that are not the index's and were not changed within grace,
// has links saved again whose file is gone, and reads what could not be read
// before. It stays in the folder and follows no links of the file system. Before
// the scan is done it does nothing.
func (i *Index) Sweep(ctx context.Context, grace time.Duration) (Swept, error) {
	if !i.Scanned() {
		return Swept{}, nil
	}
	w := &sweeper{i: i, grace: grace, present: make(map[id]struct{})}
	err := w.top(ctx)
	if err == nil {
		w.restore()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	w.swept.Damaged, i.damaged = i.damaged, 0
	return w.swept, err
}

type sweeper struct {
	i       *Index
	grace   time.Duration
	swept   Swept
	present map[id]struct{} // links that have a file
}

func (w *sweeper) top(ctx context.Context) error {
	names, err := w.i.fs.ReadDir(".")
	if err != nil {
		return err
	}
	for _, shard := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := w.i.fs.Stat(shard)
		switch {
		case len(shard) == 2 && errors.Is(err, disk.ErrFolder):
			if err := w.shard(shard); err != nil {
				return err
			}
		case shard != lockFile:
			w.remove(shard)
		}
	}
	return nil
}

func (w *sweeper) shard(shard string) error {
	names, err := w.i.fs.ReadDir(shard)
	if err != nil {
		return err
	}
	for _, file := range names {
		full := path.Join(shard, file)
		if key, ok := idIn(shard, file); ok {
			if _, err := w.i.fs.Stat(full); err == nil {
				w.present[key] = struct{}{}
				w.reread(key)
				continue
			}
		}
		w.remove(full)
	}
	return nil
}

// reread reads the file of a link that is not known: one that could not be read
// before, or was put there by somebody.
func (w *sweeper) reread(key id) {
	i := w.i
	i.mu.RLock()
	_, dirty := i.dirty[key]
	known := i.links[key] != nil || dirty
	i.mu.RUnlock()
	if known {
		return
	}
	i.flushing.Lock() // the file does not change meanwhile
	defer i.flushing.Unlock()
	n, err := i.load(key)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, dirty := i.dirty[key]; dirty || i.links[key] != nil {
		return
	}
	switch {
	case err == nil:
		i.set(key, n)
		i.bound(key)
		w.swept.Found++
	case errors.Is(err, errDamaged):
		i.discard(key)
	}
}

// restore has links saved again whose file is gone.
func (w *sweeper) restore() {
	i := w.i
	var missing []id
	i.mu.RLock()
	for key := range i.links {
		if _, ok := w.present[key]; !ok {
			missing = append(missing, key)
		}
	}
	i.mu.RUnlock()
	i.flushing.Lock() // no file comes meanwhile
	defer i.flushing.Unlock()
	for _, key := range missing {
		if _, err := i.fs.Stat(name(key)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		i.mu.Lock()
		if _, dirty := i.dirty[key]; !dirty && i.links[key] != nil {
			i.changed(key)
			w.swept.Restored++
		}
		i.mu.Unlock()
	}
}

// remove removes a file that is old enough, or something that is no file. A folder
// stays unless it is empty.
func (w *sweeper) remove(file string) {
	// Not while a link is being saved, whose temporary file this may be.
	w.i.flushing.Lock()
	defer w.i.flushing.Unlock()
	info, err := w.i.fs.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && disk.Young(info.ModTime, time.Now(), w.grace) {
		return
	}
	if w.i.fs.Remove(file) == nil {
		w.swept.Undesired++
	}
}
