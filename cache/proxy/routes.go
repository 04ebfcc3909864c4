package proxy

import (
	"sync"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// routes remembers what the table, which does not change, said of the hosts that
// clients name, and what the upstream is called as an origin. Safe for parallel
// use.
type routes struct {
	table *route.Table

	mu    sync.RWMutex
	known map[named]routed
}

type named struct{ host, ns string }

type routed struct {
	target route.Target
	origin string
}

// maxRoutes bounds it: names are the clients' to choose where rules have groups.
const maxRoutes = 1024

func (r *routes) resolve(host, ns string) (routed, error) {
	key := named{host, ns}
	r.mu.RLock()
	to, ok := r.known[key]
	r.mu.RUnlock()
	if ok {
		return to, nil
	}
	target, err := r.table.Resolve(host, ns)
	if err != nil {
		return routed{}, err
	}
	to = routed{target, Origin(target)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxRoutes {
		r.known = make(map[named]routed)
	}
	r.known[key] = to
	return to, nil
}
