package policy

// WTinyLFU is W-TinyLFU of "TinyLFU: a highly efficient cache admission policy"
// (Einziger, Friedman and Manes, ACM TOS 2017): new entries come into an LRU window of
// a hundredth of the cache. What leaves it is a candidate for the main part, an LRU of
// two segments (what was used there moves to the protected one, of four fifths): when
// room is needed, the candidate stays only if it was used more often lately than the
// oldest entry of the main part, and is the victim otherwise. So what was added last
// may be given up first. Uses are counted for all keys, held or not (see sketch).
//
// Shares are of the bytes held, as in S3FIFO. An entry has about 48 bytes beside its
// place in a map, and 8 to 16 in the sketch, which has no names of entries that
// left and never shrinks. It keeps what is popular in the long run and is slow to see
// that it no longer is.
type WTinyLFU[K comparable] struct {
	nodes      map[K]*node[K]
	window     *list[K]
	candidates *list[K] // what left the window and was not compared yet
	probation  *list[K]
	protected  *list[K]
	recent     *sketch[K]

	// A cache that is not full asks for no victim, and all that come may stay.
	// So there are only as many candidates as victims made room for.
	victims int  // asked for one after the other
	added   bool // something came after them
}

const (
	windowShare    = 100 // the window is kept at one windowShare-th of the bytes
	protectedParts = 4   // of 5 parts of the main part, the most that is protected
	mainParts      = 5
)

// NewWTinyLFU returns an empty W-TinyLFU.
func NewWTinyLFU[K comparable]() *WTinyLFU[K] {
	return &WTinyLFU[K]{
		nodes:  make(map[K]*node[K]),
		window: newList[K](), candidates: newList[K](), probation: newList[K](), protected: newList[K](),
		recent: newSketch[K](),
	}
}

// Add implements Policy.
func (w *WTinyLFU[K]) Add(key K, n int64) {
	e := w.nodes[key]
	if e != nil {
		e.grow(n)
	} else {
		w.recent.add(key, w.Len())
		e = &node[K]{key: key, size: max(n, 0)}
		w.nodes[key] = e
		w.window.pushFront(e)
		w.added = true
	}
	// An entry stays in the window however big it is, until another comes.
	for w.window.len > 1 && w.window.bytes*windowShare > w.Bytes() {
		w.candidates.take(w.window.back())
	}
}

// Touch implements Policy.
func (w *WTinyLFU[K]) Touch(key K, n int64) {
	e := w.nodes[key]
	if e == nil || !e.used(n) {
		return
	}
	w.recent.add(key, w.Len())
	to := w.protected
	if e.home == w.window {
		to = w.window
	}
	to.take(e)
	for w.protected.len > 1 && w.protected.bytes*mainParts > (w.Bytes()-w.window.bytes)*protectedParts {
		w.probation.take(w.protected.back())
	}
}

// Remove implements Policy. Its uses stay counted.
func (w *WTinyLFU[K]) Remove(key K) {
	if e := w.nodes[key]; e != nil {
		w.drop(e)
	}
}

func (w *WTinyLFU[K]) drop(e *node[K]) {
	e.remove()
	delete(w.nodes, e.key)
}

// Victim implements Policy.
func (w *WTinyLFU[K]) Victim() (key K, size int64, ok bool) {
	w.settle()
	var e *node[K]
	for _, from := range []*list[K]{w.probation, w.protected, w.candidates, w.window} {
		if e = from.back(); e != nil {
			break
		}
	}
	if e == nil {
		return key, 0, false
	}
	if c := w.candidates.back(); c != nil && c != e {
		if w.recent.count(c.key) > w.recent.count(e.key) {
			w.probation.take(c)
		} else {
			e = c
		}
	}
	w.drop(e)
	return e.key, e.size, true
}

// settle lets those candidates stay that came when there was room, the last one
// excepted, for which room is needed now.
func (w *WTinyLFU[K]) settle() {
	if w.added {
		for w.candidates.len > max(1, w.victims) {
			w.probation.take(w.candidates.back())
		}
		w.victims, w.added = 0, false
	}
	w.victims++
}

// Len implements Policy.
func (w *WTinyLFU[K]) Len() int {
	return w.window.len + w.candidates.len + w.probation.len + w.protected.len
}

// Bytes implements Policy.
func (w *WTinyLFU[K]) Bytes() int64 {
	return w.window.bytes + w.candidates.bytes + w.probation.bytes + w.protected.bytes
}
