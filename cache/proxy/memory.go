package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/policy"
)

// item is content in memory. It was hashed when it came in and is read only.
type item struct {
	body   []byte
	digest digest.Digest

	parse  sync.Once
	doc    document // what the body says it is, of a manifest
	docErr error

	// Header values that are the same in each answer, so that a hit makes
	// none.
	etag, digestHeader, length []string

	touched atomic.Int64 // Unix seconds when the engine was last told of use
}

// memory is the tier before the disk: bounded, by digest, hashed content only.
// Whether a caller may see it is asked before, as for everything else. Safe for
// parallel use; a hit waits for nobody but an insertion.
type memory struct {
	max int64 // bytes

	mu    sync.RWMutex
	items map[digest.Digest]*item

	policyMu sync.Mutex // after mu; a hit only tries it
	policy   policy.Policy[digest.Digest]

	hits, misses, evicted atomic.Uint64
	bytes                 atomic.Int64
}

// itemCost is what an item takes beside its body, in bytes; estimated.
const itemCost = 512

func newMemory(maxBytes int64) *memory {
	return &memory{max: maxBytes, items: make(map[digest.Digest]*item), policy: policy.NewS3FIFO[digest.Digest]()}
}

// find returns what is kept of d, or nil.
func (m *memory) find(d digest.Digest) *item {
	m.mu.RLock()
	it := m.items[d]
	m.mu.RUnlock()
	if it == nil {
		m.misses.Add(1)
		return nil
	}
	m.hits.Add(1)
	if m.policyMu.TryLock() { // a hit that is not counted does no harm
		m.policy.Touch(d, it.cost())
		m.policyMu.Unlock()
	}
	return it
}

func (it *item) cost() int64 { return int64(len(it.body)) + itemCost }

// keep adds it unless it is there or larger than an eighth of the memory.
func (m *memory) keep(it *item) {
	if it.cost() > m.max/8 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.items[it.digest]; ok {
		return
	}
	m.items[it.digest] = it
	m.policyMu.Lock()
	defer m.policyMu.Unlock()
	m.policy.Add(it.digest, it.cost())
	for m.policy.Bytes() > m.max {
		victim, _, ok := m.policy.Victim()
		if !ok {
			break
		}
		delete(m.items, victim)
		m.evicted.Add(1)
	}
	m.bytes.Store(m.policy.Bytes())
}

// forget drops what is kept of d.
func (m *memory) forget(d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.items[d]; !ok {
		return
	}
	delete(m.items, d)
	m.policyMu.Lock()
	defer m.policyMu.Unlock()
	m.policy.Remove(d)
	m.bytes.Store(m.policy.Bytes())
}

func (m *memory) len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.items)
}
