package proxy

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/route"
)

// ping answers a request for /v2/ with what the upstream says to the same
// caller, so that a client finds out where to get a token.
func (x *exchange) ping() {
	if x.h.trusted() {
		x.pong(&pong{})
		return
	}
	if x.auth == "" {
		if p, ok := x.h.pings.get(x.target); ok {
			x.pong(p)
			return
		}
	}
	p, err := x.h.pings.flights.do(x.r.Context(), pingKey{x.target, string(x.auth)}, task[*pong]{
		who:    string(x.auth),
		found:  func() (*pong, bool) { return nil, false },
		work:   x.askBase,
		usable: func(*pong) bool { return true }, // the key has the credentials
	})
	if err != nil {
		x.fail(answerTo(err, KindBase))
		return
	}
	x.pong(p)
}

func (x *exchange) pong(p *pong) {
	if p.refused != nil {
		x.fail(answerTo(p.refused, KindBase))
		return
	}
	x.outcomeIs(OutcomePassed)
	h := x.w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{"3"}
	x.begin(http.StatusOK)
	x.write([]byte("{}\n"))
}

func (x *exchange) askBase() (*pong, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), x.h.cfg.FetchTimeout)
	defer cancel()
	resp, err := x.h.parts.Upstream.Do(newRequest(ctx, http.MethodGet, x.target, "/v2/", x.auth))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	p := &pong{until: time.Now().Add(x.h.cfg.PingTTL)}
	if resp.StatusCode != http.StatusOK {
		p.refused = newStatusError(resp, x.target)
		if resp.StatusCode != http.StatusUnauthorized {
			return nil, p.refused // not kept
		}
	}
	if x.auth == "" && x.h.cfg.PingTTL > 0 {
		x.h.pings.put(x.target, p)
	}
	return p, nil
}

// pong is an upstream's answer to /v2/.
type pong struct {
	refused *statusError // 401 with the challenge; nil: 200
	until   time.Time
}

type pingKey struct {
	target route.Target
	auth   string
}

// pings keeps what upstreams say to callers without credentials, of which there
// are as many as of everything else together. The zero value is ready to use.
type pings struct {
	flights flights[pingKey, *pong]

	mu sync.Mutex
	m  map[route.Target]*pong
}

// maxPings bounds it where rules make upstreams of the names that are asked for.
const maxPings = 1024

func (p *pings) get(t route.Target) (*pong, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.m[t]
	return v, ok && time.Now().Before(v.until)
}

func (p *pings) put(t route.Target, v *pong) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil || len(p.m) >= maxPings {
		p.m = make(map[route.Target]*pong)
	}
	p.m[t] = v
}
