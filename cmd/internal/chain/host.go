package chain

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// host is what the blobs of one registry host share.
type host struct {
	limit *blob.Limiter
	line  *replay.Line
	start time.Time
	// needed is when the last demand read ended, as time since start.
	needed atomic.Int64
	// replays is how many of them are under way.
	replays atomic.Int32
}

// replaying notes that a replay is under way until the function returned is
// called: what it fetches is needed before long.
func (h *host) replaying() (end func()) {
	h.replays.Add(1)
	return func() {
		h.needed.Store(int64(time.Since(h.start)))
		h.replays.Add(-1)
	}
}

// host returns what is known of a host. The caller holds mu.
func (c *Chain) host(name string) *host {
	h := c.hosts[name]
	if h == nil {
		h = &host{limit: blob.NewLimiter(c.cfg.Limit), line: replay.NewLine(), start: time.Now()}
		c.hosts[name] = h
	}
	return h
}

// ObserveRead implements blob.Observer.
func (h *host) ObserveRead(_ int, _ time.Duration, _ error, p blob.Priority) {
	if p == blob.Demand {
		h.needed.Store(int64(time.Since(h.start)))
	}
}

// quiet returns for how long there was no demand read and no replay, since start
// at most.
func (h *host) quiet() time.Duration {
	s := h.limit.Stats()
	if h.replays.Load() > 0 {
		return 0
	}
	if s.InFlight > s.InFlightBackground || s.Waiting > s.WaitingBackground {
		return 0
	}
	return time.Since(h.start) - time.Duration(h.needed.Load())
}

// hostOf returns what is known of the registry of ref.
func (c *Chain) hostOf(ref string) (*host, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parsing reference %q: %w", ref, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.host(reference.Domain(named)), nil
}

// Quiet returns for how long nobody has been waiting for the registry of ref, and
// no start was replayed; 0 if somebody is, or one is.
func (c *Chain) Quiet(ref string) time.Duration {
	h, err := c.hostOf(ref)
	if err != nil {
		return 0 // and nothing can be opened
	}
	return h.quiet()
}

// Line returns what is known of the way to the registry of ref.
func (c *Chain) Line(ref string) replay.LineStats {
	h, err := c.hostOf(ref)
	if err != nil {
		return replay.LineStats{}
	}
	return h.line.Stats()
}
