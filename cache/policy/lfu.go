package policy

// LFU gives up the entry that was used least often since it came, of equals the one
// used longest ago. What was popular once stays for as long as it is in the cache,
// and an entry that comes again begins anew: it is here to compare with. A call costs
// O(log n); an entry has about 72 bytes beside its place in a map.
type LFU[K comparable] struct{ byUse[K] }

// NewLFU returns an empty LFU.
func NewLFU[K comparable]() *LFU[K] {
	return &LFU[K]{byUse[K]{nodes: make(map[K]*ranked[K])}}
}

// GDSF is Greedy-Dual-Size-Frequency of "Improving WWW proxies performance with
// Greedy-Dual-Size-Frequency caching policy" (Cherkasova, HP Laboratories 1998): an
// entry ranks by how often it was used for each byte it takes, above an age that
// rises to the rank of each entry given up. It keeps small entries rather than big
// ones: many hits by number, fewer by bytes. All entries cost the same to fetch. With
// entries of one size it is LFU with dynamic ageing (LFU-DA). An entry that grows is
// ranked anew from the age at its last use. A call costs O(log n); an entry has about
// 72 bytes beside its place in a map.
type GDSF[K comparable] struct{ byUse[K] }

// NewGDSF returns an empty GDSF.
func NewGDSF[K comparable]() *GDSF[K] {
	return &GDSF[K]{byUse[K]{nodes: make(map[K]*ranked[K]), perByte: true}}
}

// byUse is what LFU and GDSF share: entries in the order of their uses.
type byUse[K comparable] struct {
	nodes   map[K]*ranked[K]
	heap    heap[K]
	perByte bool    // rank is age and uses over size, not uses
	age     float64 // the rank of what was last given up
	tick    uint64
}

// Add implements Policy.
func (l *byUse[K]) Add(key K, n int64) {
	e := l.nodes[key]
	if e != nil {
		l.heap.grow(e, n)
		l.rank(e)
		l.heap.fix(e)
		return
	}
	e = &ranked[K]{key: key, size: max(n, 0)}
	l.nodes[key] = e
	l.use(e, 1)
	l.heap.push(e)
}

// use counts uses of e now.
func (l *byUse[K]) use(e *ranked[K], times int64) {
	l.tick++
	e.uses += times
	e.tick, e.base = l.tick, l.age
	l.rank(e)
}

func (l *byUse[K]) rank(e *ranked[K]) {
	if l.perByte {
		e.rank = e.base + float64(e.uses)/float64(max(e.size, 1))
	} else {
		e.rank = float64(e.uses)
	}
}

// Touch implements Policy.
func (l *byUse[K]) Touch(key K, n int64) {
	e := l.nodes[key]
	if e == nil {
		return
	}
	e.read += n
	if times := uses(e.read, e.size); times > 0 {
		e.read = max(0, e.read-times*e.size)
		l.use(e, times)
		l.heap.fix(e)
	}
}

// Remove implements Policy.
func (l *byUse[K]) Remove(key K) {
	if e := l.nodes[key]; e != nil {
		l.heap.remove(e)
		delete(l.nodes, key)
	}
}

// Victim implements Policy.
func (l *byUse[K]) Victim() (key K, size int64, ok bool) {
	if len(l.heap.items) == 0 {
		return key, 0, false
	}
	e := l.heap.items[0]
	l.age = max(l.age, e.rank) // an entry that grew may rank below
	l.heap.remove(e)
	delete(l.nodes, e.key)
	return e.key, e.size, true
}

// Len implements Policy.
func (l *byUse[K]) Len() int { return len(l.heap.items) }

// Bytes implements Policy.
func (l *byUse[K]) Bytes() int64 { return l.heap.bytes }
