package tier

import (
	"fmt"
	"sync"
	"time"
)

// How long a store that failed is left alone: the first time, and at most.
const (
	firstPause = time.Second
	longPause  = 30 * time.Second
)

// breaker keeps calls from a store that is away.
type breaker struct {
	mu      sync.Mutex
	away    bool
	probing bool // one call finds out whether it is back
	epoch   uint64
	pause   time.Duration // the last one
	until   time.Time     // of the pause
	since   time.Time     // of the last change of away
	last    string        // error
	refused uint64
}

// pass is the leave for one call, which says at least one of worked, failed and left.
type pass struct {
	b     *breaker
	epoch uint64 // results of calls from before the last change do not count
	probe bool
}

// enter lets a call through or returns ErrAway.
func (b *breaker) enter() (*pass, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.away {
		return &pass{b: b, epoch: b.epoch}, nil
	}
	if b.probing || time.Now().Before(b.until) {
		b.refused++
		return nil, fmt.Errorf("%w: %s", ErrAway, b.last)
	}
	b.probing = true
	return &pass{b: b, epoch: b.epoch, probe: true}, nil
}

// worked is that the store did what was asked; it may fail later.
func (p *pass) worked() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.epoch == p.b.epoch && p.b.away {
		p.b.away, p.b.since = false, time.Now()
		p.b.epoch++
		p.epoch = p.b.epoch
	}
	p.end()
}

// failed is that it did not. Of the calls that were under way together the first
// that fails counts.
func (p *pass) failed(err error) {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.epoch == b.epoch {
		now := time.Now()
		switch {
		case b.pause > 0 && (b.away || now.Sub(b.since) < b.pause):
			b.pause = min(2*b.pause, longPause) // it was not better for long, or not at all
		default:
			b.pause = firstPause
		}
		if !b.away {
			b.away, b.since = true, now
		}
		b.until, b.last = now.Add(b.pause), err.Error()
		b.epoch++
	}
	p.end()
}

// left is that the call ended for other reasons, and nothing new is known.
func (p *pass) left() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.end()
}

// end gives up the probe. The breaker is locked.
func (p *pass) end() {
	if p.probe {
		p.b.probing, p.probe = false, false
	}
}

func (b *breaker) state() (State, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return State{Away: b.away, Since: b.since, Error: b.last}, b.refused
}
