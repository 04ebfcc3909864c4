package fusedev

import (
	"maps"
	"slices"
	"sync"
)

// table holds the entries by ID and by inode number. Nothing is done under its
// lock that could wait, since the loop that serves the kernel takes it.
type table struct {
	mu   sync.RWMutex
	id   map[string]*entry
	node map[uint64]*entry
}

func newTable() *table {
	return &table{id: make(map[string]*entry), node: make(map[uint64]*entry)}
}

// insert adds e unless its ID or inode number is taken.
func (t *table) insert(e *entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.id[e.id] != nil || t.node[e.node] != nil {
		return false
	}
	t.id[e.id], t.node[e.node] = e, e
	return true
}

func (t *table) remove(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.id[e.id] == e {
		delete(t.id, e.id)
		delete(t.node, e.node)
	}
}

func (t *table) byID(id string) *entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.id[id]
}

func (t *table) byNode(node uint64) *entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.node[node]
}

// all returns the entries ordered by ID.
func (t *table) all() []*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var entries []*entry
	for _, id := range slices.Sorted(maps.Keys(t.id)) {
		entries = append(entries, t.id[id])
	}
	return entries
}
