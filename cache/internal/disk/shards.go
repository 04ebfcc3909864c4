package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
)

// maxShards bounds the folders that are kept open.
const maxShards = 512

// shards keeps the folders open that files are in, because an os.Root opens each
// folder of a name anew with every call.
type shards struct {
	mu   sync.RWMutex
	open map[string]*os.Root
}

// at calls call with an open folder and the name within it of the file that is
// called name in the root.
func (o *OS) at(name string, call func(r *os.Root, name string) error) error {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	r := o.shard(dir)
	if r == nil {
		return call(o.root, name)
	}
	err := call(r, base)
	if errors.Is(err, fs.ErrNotExist) && o.removed(dir, r) {
		return call(o.root, name)
	}
	return err
}

// shard returns the folder dir, nil if it is not one to be kept open.
func (o *OS) shard(dir string) *os.Root {
	if strings.Count(dir, "/") < 2 {
		return nil
	}
	o.shards.mu.RLock()
	r := o.shards.open[dir]
	o.shards.mu.RUnlock()
	if r != nil {
		return r
	}
	r, err := o.root.OpenRoot(dir)
	if err != nil {
		return nil
	}
	o.shards.mu.Lock()
	defer o.shards.mu.Unlock()
	if have := o.shards.open[dir]; have != nil || len(o.shards.open) >= maxShards {
		r.Close()
		return have
	}
	o.shards.open[dir] = r
	return r
}

// removed reports whether somebody removed the folder dir since it was opened as r,
// and forgets it. Others may be using it, so it is left to the garbage collector.
func (o *OS) removed(dir string, r *os.Root) bool {
	st, err := r.Stat(".")
	if err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Nlink > 0 {
			return false
		}
	}
	o.shards.mu.Lock()
	defer o.shards.mu.Unlock()
	if o.shards.open[dir] == r {
		delete(o.shards.open, dir)
	}
	return true
}

func (s *shards) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.open {
		err = errors.Join(err, r.Close())
	}
	clear(s.open)
	return err
}
