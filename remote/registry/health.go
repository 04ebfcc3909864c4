package registry

import (
	"sync"
	"time"
)

const (
	shortestBan = 5 * time.Second
	longestBan  = 5 * time.Minute
)

// health remembers which hosts failed lately. Such a host is tried after the
// others, for a time that doubles with each further failure.
type health struct {
	mu   sync.Mutex
	bans map[string]ban // by origin
}

type ban struct {
	until time.Time
	span  time.Duration
}

func newHealth() *health { return &health{bans: make(map[string]ban)} }

// order returns the endpoints with those that failed lately at the end.
func (h *health) order(all []*endpoint) []*endpoint {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.bans) == 0 || len(all) < 2 {
		return all
	}
	now := time.Now()
	first := make([]*endpoint, 0, len(all))
	var last []*endpoint
	for _, e := range all {
		if now.Before(h.bans[e.origin].until) {
			last = append(last, e)
		} else {
			first = append(first, e)
		}
	}
	return append(first, last...)
}

// bad notes a failure. Those of requests that were under way together count
// once.
func (h *health) bad(e *endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	b := h.bans[e.origin]
	if now.Before(b.until) {
		return
	}
	b.span = min(max(2*b.span, shortestBan), longestBan)
	b.until = now.Add(b.span)
	h.bans[e.origin] = b
}

func (h *health) good(e *endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bans, e.origin)
}
