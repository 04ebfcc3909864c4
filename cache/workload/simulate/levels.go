package simulate

import (
	"context"
	"sync"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Levels is a cache of two levels: what memory gives up goes to disk, and what is
// asked for there goes back to memory and leaves the disk.
type Levels struct {
	Memory Size `json:"memory"`
	Disk   Size `json:"disk"`
	// Policy of both. Default lru.
	Policy string `json:"policy,omitempty"`
	// Direct is the size, in bytes, from which objects go past memory. 0: what is
	// larger than memory.
	Direct int64 `json:"direct,omitempty"`
	// Warm leaves out of each level's counts what came before its first eviction, as
	// the original does.
	Warm bool `json:"warm,omitempty"`
}

// LevelCell is what a cache of two levels did.
type LevelCell struct {
	Levels
	Memories   int64 `json:"memoryCapacity"`
	Disks      int64 `json:"diskCapacity"`
	MemoryHits Tally `json:"memoryHits"` // Requests are all, Hits those of memory
	DiskHits   Tally `json:"diskHits"`   // Requests are those that memory did not have
	All        Tally `json:"all"`        // Hits are those of both
}

// twoLevels is a cache of two levels.
type twoLevels struct {
	memory, disk *store
	direct       int64
}

func newTwoLevels(l Levels, memory, disk int64, objects int) (*twoLevels, error) {
	name := l.Policy
	if name == "" {
		name = policy.NameLRU
	}
	t := &twoLevels{direct: memory + 1}
	if l.Direct > 0 {
		t.direct = min(l.Direct, memory)
	}
	var err error
	if t.memory, err = newStore(name, memory, objects); err != nil {
		return nil, err
	}
	t.disk, err = newStore(name, disk, objects)
	t.memory.onEvict = t.disk.put
	return t, err
}

// get reports which level has the object, and takes it in.
func (t *twoLevels) get(id uint32, size int64) (inMemory, onDisk bool) {
	if t.memory.have[id] {
		return t.memory.get(id, size), false
	}
	if size >= t.direct {
		return false, t.disk.get(id, size)
	}
	onDisk = t.disk.have[id]
	if onDisk {
		t.disk.remove(id, size)
	}
	t.memory.put(id, size)
	return false, onDisk
}

// levelsRunning is a cache of two levels in the middle of a trace.
type levelsRunning struct {
	d    *Decoded
	cell LevelCell
	t    *twoLevels
}

func beginLevels(d *Decoded, l Levels) (*levelsRunning, error) {
	r := &levelsRunning{d: d, cell: LevelCell{Levels: l}}
	var err error
	if r.cell.Memories, err = l.Memory.of(d); err != nil {
		return nil, err
	}
	if r.cell.Disks, err = l.Disk.of(d); err != nil {
		return nil, err
	}
	r.t, err = newTwoLevels(l, r.cell.Memories, r.cell.Disks, len(d.Sizes))
	return r, err
}

func (r *levelsRunning) access(a Access) {
	// What this access evicts is after it.
	memoryWarm, diskWarm := !r.cell.Warm || r.t.memory.evicted > 0, !r.cell.Warm || r.t.disk.evicted > 0
	size := r.d.Sizes[a.ID]
	inMemory, onDisk := r.t.get(a.ID, size)
	if memoryWarm {
		r.cell.MemoryHits.add(size, inMemory)
	}
	if diskWarm {
		if !inMemory {
			r.cell.DiskHits.add(size, onDisk)
		}
		r.cell.All.add(size, inMemory || onDisk)
	}
}

// levels runs a cache of two levels over the trace.
func levels(ctx context.Context, d *Decoded, l Levels) (LevelCell, error) {
	r, err := beginLevels(d, l)
	if err != nil {
		return LevelCell{}, err
	}
	for _, a := range d.Accesses.during(ctx) {
		r.access(a)
	}
	return r.cell, ctx.Err()
}

// NodeCell is what caches on each node did, and what they left for the shared one.
type NodeCell struct {
	Policy   string `json:"policy"`
	Size     Size   `json:"size"` // of each node's
	Capacity int64  `json:"capacity"`
	Nodes    int    `json:"nodes"`
	All      Tally  `json:"all"`    // of the nodes' caches
	Shared   []Cell `json:"shared"` // behind them
}

// shared is what is behind the caches of nodes.
type shared struct {
	cells []Cell // not simulated yet
	gc    GC
}

// perNode runs a cache for each node, and those of shared over what they miss.
func perNode(ctx context.Context, d *Decoded, cell *NodeCell, behind shared) error {
	missed := &Decoded{Sizes: d.Sizes, Kinds: d.Kinds, Nodes: d.Nodes, Unit: d.Unit, Timed: d.Timed}
	nodes := make([]*nodeStore, d.Nodes)
	for i := range nodes {
		s, err := newNodeStore(cell.Policy, cell.Capacity)
		if err != nil {
			return err
		}
		nodes[i] = s
	}
	for _, a := range d.Accesses.during(ctx) {
		hit := nodes[a.Node].get(a.ID, d.Sizes[a.ID])
		cell.All.add(d.Sizes[a.ID], hit)
		if !hit {
			missed.Accesses.Add(a)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	cell.Nodes = d.Nodes
	ahead := sync.OnceValue(func() *future { return newFuture(missed) })
	for _, s := range behind.cells {
		if err := one(ctx, missed, &s, behind.gc, ahead); err != nil {
			return err
		}
		s.Over = nil // its parts are not those of the trace
		cell.Shared = append(cell.Shared, s)
	}
	return nil
}
