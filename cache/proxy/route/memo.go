package route

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// memo remembers what requests led to: a Table does not change, clients ask for a
// few names, and the regular expressions take longer than the rest of a hit. It is
// read without a lock.
type memo struct {
	mu    sync.Mutex // of who adds
	known atomic.Pointer[map[question]Target]
}

type question struct{ host, ns string }

// maxMemo bounds the answers, and maxQuestion the bytes of what leads to one: beyond,
// it is clients that make names up.
const (
	maxMemo     = 256
	maxQuestion = 512
)

func (m *memo) find(q question) (Target, bool) {
	known := m.known.Load()
	if known == nil {
		return Target{}, false
	}
	t, ok := (*known)[q]
	return t, ok
}

func (m *memo) add(q question, t Target) {
	if len(q.host)+len(q.ns) > maxQuestion {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[question]Target)
	if old := m.known.Load(); old != nil && len(*old) < maxMemo { // else it begins anew
		maps.Copy(next, *old)
	}
	next[question{strings.Clone(q.host), strings.Clone(q.ns)}] = t // not a part of the request
	m.known.Store(&next)
}
