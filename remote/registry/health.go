package registry

import (
	"slices"
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

// rejectionTime is for how long a host that served wrong bytes of a blob is
// asked for others of it after all other hosts.
const rejectionTime = 5 * time.Minute

// rejections remembers which hosts served wrong bytes of one blob.
type rejections struct {
	mu sync.Mutex
	at map[string]time.Time // by origin
}

func newRejections() *rejections { return &rejections{at: make(map[string]time.Time)} }

func (r *rejections) add(origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[origin] = time.Now()
}

// order returns the endpoints with those rejected lately at the end, the first
// of them first: repeated rejections go round all hosts.
func (r *rejections) order(all []*endpoint) []*endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at) == 0 {
		return all
	}
	for origin, at := range r.at {
		if time.Since(at) >= rejectionTime {
			delete(r.at, origin)
		}
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b *endpoint) int { return r.at[a.origin].Compare(r.at[b.origin]) })
	return out
}
