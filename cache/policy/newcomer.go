package policy

// Expectant is a policy whose choice of a victim depends on what the room is for. A
// cache that makes room before it adds says so with Expect; one that adds first and
// makes room afterwards need not. ARC and 2Q decide as published then; without, they
// choose as if the entry added last wanted the room, which is hardly worse.
type Expectant[K comparable] interface {
	Policy[K]

	// Expect says that key, which is not held, is wanted, and that Victim is
	// called for it until it fits and then Add.
	Expect(key K)
}

// origin is where a newcomer was known.
type origin uint8

const (
	unknown origin = iota
	once           // among those given up that were used once
	often          // among those given up that were used again
)

// newcomer is the entry that the room is for, and the size of the cache as ARC and 2Q
// learn it, which have shares of it: what was held before the newcomer when a victim
// was first asked for.
type newcomer[K comparable] struct {
	key      K
	node     *node[K] // nil: expected only
	from     origin
	pending  bool // expected, not yet added
	asked    bool // a victim was asked for
	capacity int64
}

// meet makes key the newcomer.
func (w *newcomer[K]) meet(key K, from origin) {
	w.key, w.node, w.from, w.pending, w.asked = key, nil, from, true, false
}

// arrived says that the newcomer became e.
func (w *newcomer[K]) arrived(e *node[K]) { w.node, w.pending = e, false }

// forget must be called for each entry that goes.
func (w *newcomer[K]) forget(e *node[K]) {
	if w.node == e {
		w.node, w.from = nil, unknown
	}
}

// ask says that a victim is asked for while held bytes are held, and reports whether
// it is the first for this newcomer.
func (w *newcomer[K]) ask(held int64) (first bool) {
	if w.asked {
		return false
	}
	w.asked = true
	w.capacity = held
	if w.node != nil {
		w.capacity -= w.node.size
	}
	return true
}

// bytes returns the bytes of l without the newcomer.
func (w *newcomer[K]) bytes(l *list[K]) int64 {
	if w.node != nil && w.node.home == l {
		return l.bytes - w.node.size
	}
	return l.bytes
}

// oldest returns the oldest entry of l that is not the newcomer, nil if there is none.
func (w *newcomer[K]) oldest(l *list[K]) *node[K] {
	e := l.back()
	if e == nil || e != w.node {
		return e
	}
	if e.prev == &l.root {
		return nil
	}
	return e.prev
}

// ghosts is a list of what was given up, newest first.
type ghosts[K comparable] struct {
	nodes map[K]*node[K] // of the policy
	list  *list[K]
}

// take remembers e, which is in no list.
func (g ghosts[K]) take(e *node[K]) {
	e.read = 0
	g.list.pushFront(e)
}

// drop forgets the oldest and reports whether there was one.
func (g ghosts[K]) drop() bool {
	e := g.list.back()
	if e == nil {
		return false
	}
	e.remove()
	delete(g.nodes, e.key)
	return true
}
