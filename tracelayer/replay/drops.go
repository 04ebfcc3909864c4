package replay

import "sync"

const (
	// lateDrops and lateBytes bound what stays staged although it is cached.
	lateDrops = 32
	lateBytes = 1 << 20
)

// drops puts off dropping what was staged: a read that began before that was cached
// may be on its way down to the stage.
type drops struct {
	mu    sync.Mutex
	later []lateDrop
	bytes int64
}

type lateDrop struct {
	drop func()
	n    int64
}

// add has n bytes dropped later.
func (d *drops) add(drop func(), n int64) {
	d.mu.Lock()
	d.later = append(d.later, lateDrop{drop, n})
	d.bytes += n
	d.mu.Unlock()
	d.flush(lateDrops, lateBytes)
}

// flush drops the oldest until no more than so many, of so many bytes, are left.
func (d *drops) flush(count int, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.later) > count || d.bytes > bytes {
		d.later[0].drop()
		d.bytes -= d.later[0].n
		d.later = d.later[1:]
	}
}
