package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// Bounds of items: in a message, of all clients together, of one in a closed loop.
const (
	maxItems   = 128
	maxQueued  = 1 << 18
	maxPending = 512
)

// slack is how much longer than a client may be silent items are read ahead: while it
// is not known to be lost, the others still have something to send.
const slack = 2 * time.Second

// deal reads the items and gives them to clients, until there are no more or ctx ends.
// The error is that of the source.
func (m *Master) deal(ctx context.Context, src load.Source) error {
	ahead := misses*m.cfg.Heartbeat + slack
	for {
		it, err := src.Next(ctx)
		switch {
		case err == nil && ctx.Err() == nil:
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("reading what to send: %w", err)
		}
		if d := m.cfg.Job.Load.Duration; m.timed() && d > 0 && it.Due >= d {
			return nil
		}
		if m.timed() && !pause.For(ctx, time.Until(m.start.Add(it.Due-ahead))) {
			return nil
		}
		for !m.give(it) {
			select {
			case <-m.space:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// give gives an item to a client. It reports false if there is no room for it.
func (m *Master) give(it load.Item) bool {
	if m.queued.Load() >= maxQueued {
		return false
	}
	l := m.route(&it)
	if l == nil {
		return false
	}
	taken, lost := l.push(it)
	if lost {
		l.miss()
		m.tell(m.lostResult(&it))
	}
	// One that is done because its time is up does not read on, as an engine would not.
	return taken || lost || m.cfg.Loss != Takeover
}

// route returns the client that an item goes to, nil if it has to wait.
func (m *Master) route(it *load.Item) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	closed := m.cfg.Job.Load.Closed
	if key := m.keyOf(it); key != "" {
		l := m.nearest(key)
		if l == nil || closed && l.takes() && !l.room() {
			return nil
		}
		return l
	}
	for i := range m.links {
		l := m.links[(m.turn+i)%len(m.links)]
		switch takes := l.takes(); {
		case !takes && (i > 0 || m.cfg.Loss == Takeover):
			continue // a lost one has its turn, but no other's
		case takes && closed && !l.room():
			continue
		}
		m.turn = (m.turn + i + 1) % len(m.links)
		return l
	}
	return nil
}

// keyOf returns what an item has in common with those that go to the same client, ""
// if any will do. The parts of an upload do: a client knows what became of the ones
// before.
func (m *Master) keyOf(it *load.Item) string {
	switch {
	case m.cfg.ByClient && it.Client != "":
		return it.Client
	case it.Op == load.Start || it.Op == load.Append || it.Op == load.Finish:
		return it.Client + " " + trace.Parse(it.URI).Repository
	}
	return ""
}

// nearest returns the client that a key belongs to: that of the highest hash, so that
// those of other clients stay where they are when one is lost.
func (m *Master) nearest(key string) *link {
	var best *link
	var most uint64
	for _, l := range m.links {
		if m.cfg.Loss == Takeover && !l.takes() {
			continue
		}
		if h := hashOf(l.addr, key); best == nil || h > most {
			best, most = l, h
		}
	}
	return best
}

// heir returns the client that an item goes to which another was not sent, nil if
// there is none.
func (m *Master) heir(it *load.Item) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := m.keyOf(it); key != "" {
		return m.nearest(key)
	}
	for range m.links {
		l := m.links[m.turn]
		m.turn = (m.turn + 1) % len(m.links)
		if l.takes() {
			return l
		}
	}
	return nil
}

// hashOf returns a hash that is the same in each run: FNV-1a, mixed as the end of
// MurmurHash3 does, for its high bits decide.
func hashOf(texts ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, t := range texts {
		for i := range len(t) {
			h = (h ^ uint64(t[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// sorted returns items in their order.
func sorted(items map[uint64]load.Item) []load.Item {
	out := make([]load.Item, 0, len(items))
	for _, it := range items {
		out = append(out, it)
	}
	slices.SortFunc(out, bySeq)
	return out
}

func bySeq(a, b load.Item) int { return cmp.Compare(a.Seq, b.Seq) }
