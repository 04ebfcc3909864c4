package disktest

import (
	"maps"
	"math/rand/v2"
)

// sector is what a disk writes atomically.
const sector = 512

// Settle makes everything durable, as the kernel does by itself now and then.
func (f *FS) Settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durable = maps.Clone(f.names)
	for _, i := range f.names {
		i.synced = i.now.clone()
	}
}

// Kill returns what a process that is killed leaves: everything it wrote. It
// may be used while f is still written to.
func (f *FS) Kill() *FS {
	return f.after(func(i *inode) content { return i.now.clone() }, func(string) bool { return true })
}

// Crash returns what a power cut leaves. Of what was not synced, each sector of
// each file, each size and each name is by itself the old or the new one, as
// rng says. This is worse than what file systems with a journal do.
func (f *FS) Crash(rng *rand.Rand) *FS {
	g := f.after(
		func(i *inode) content { return mix(rng, i.synced, i.now) },
		func(string) bool { return rng.IntN(2) == 0 },
	)
	g.boot++
	return g
}

// after copies f with the content of files as state says, and the present name
// where keep says so, the durable one elsewhere.
func (f *FS) after(state func(*inode) content, keep func(name string) bool) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := New(f.capacity)
	g.foreign, g.boot = f.foreign, f.boot
	g.dirs = maps.Clone(f.dirs)
	copies := make(map[*inode]*inode)
	names := maps.Clone(f.names)
	maps.Copy(names, f.durable)
	for name := range names {
		i := f.durable[name]
		if keep(name) {
			i = f.names[name]
		}
		if i == nil {
			continue
		}
		if copies[i] == nil {
			c := state(i)
			copies[i] = &inode{number: i.number, changed: i.changed, now: c, synced: c.clone()}
		}
		g.names[name] = copies[i]
		g.numbers[i.number] = true
	}
	g.durable = maps.Clone(g.names)
	return g
}

// mix returns a file some of whose sectors are of a and some of b.
func mix(rng *rand.Rand, a, b content) content {
	c := content{size: a.size, pages: make(map[int64]*page)}
	if rng.IntN(2) == 0 {
		c.size = b.size
	}
	keys := maps.Clone(a.pages)
	if keys == nil {
		keys = make(map[int64]*page)
	}
	maps.Copy(keys, b.pages)
	var zero page
	for k := range keys {
		old, now := a.pages[k], b.pages[k]
		if old == now {
			c.pages[k] = old
			continue
		}
		if old == nil {
			old = &zero
		}
		if now == nil {
			now = &zero
		}
		pg := *old
		for s := 0; s < pageSize; s += sector {
			if rng.IntN(2) == 0 {
				copy(pg[s:s+sector], now[s:])
			}
		}
		c.pages[k] = &pg
	}
	return c
}
