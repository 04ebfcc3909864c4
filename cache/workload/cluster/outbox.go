package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Bounds of results that are sent together, and of those that wait.
const (
	maxBatch = 256
	maxHeld  = 1 << 16
)

// together is how long results wait for others, so that sending them takes less of
// the machine that makes them.
const together = 20 * time.Millisecond

// slowMaster is a reason for load.Stats.Saturated.
const slowMaster = "the master took results slower than they came"

// outbox has what a client is to tell its master. One goroutine sends it, so that
// nothing else waits for the connection.
type outbox struct {
	window int           // of items that the client holds
	urgent chan struct{} // there is something that should not wait
	space  chan struct{} // results were taken out

	mu      sync.Mutex
	answers []timing
	ready   bool
	taken   int
	results []result
	slow    bool // results had to wait for space
	stats   func() load.Stats
	done    *done
	told    bool // done was sent
}

func newOutbox(window int) outbox {
	return outbox{window: window, urgent: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// signal makes sure that a channel has something in it.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// answer tells the time.
func (o *outbox) answer(t timing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.answers) == maxBatch { // the master does not read them
		o.answers = o.answers[1:]
	}
	o.answers = append(o.answers, t)
	signal(o.urgent)
}

// begin tells that the job is there. stats may be nil.
func (o *outbox) begin(stats func() load.Stats) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready, o.stats = true, stats
	signal(o.urgent)
}

// took tells that an item was taken, and another may come.
func (o *outbox) took() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taken++; o.taken >= o.window/4 {
		signal(o.urgent)
	}
}

// add tells what became of an item. If the master is slow it waits; a run that ended
// has nobody to tell.
func (o *outbox) add(ctx context.Context, r result) {
	for !o.fits(r) {
		select {
		case <-o.space:
		case <-ctx.Done():
			o.force(r)
			return
		}
	}
}

func (o *outbox) fits(r result) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.results) >= maxHeld {
		o.slow = true
		return false
	}
	o.put(r)
	return true
}

// force adds what is told of a run that is aborted, of which there is not much.
func (o *outbox) force(r result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(r)
}

func (o *outbox) put(r result) {
	if o.results = append(o.results, r); len(o.results) >= maxBatch {
		signal(o.urgent)
	}
}

// finish tells that the job ended. Nothing is added after it.
func (o *outbox) finish(d done) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.slow {
		d.Stats.Saturated = append(d.Stats.Saturated, slowMaster)
	}
	o.done = &d
	signal(o.urgent)
}

// finished reports whether the master was told that the job ended.
func (o *outbox) finished() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// run sends what there is to send, and heartbeats, until ctx ends.
func (o *outbox) run(ctx context.Context, w *wire, beat time.Duration) error {
	beats := time.NewTicker(beat)
	defer beats.Stop()
	tick := time.NewTicker(together)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beats.C:
			if err := w.send(message{Beat: o.alive()}); err != nil {
				return err
			}
		case <-o.urgent:
		case <-tick.C:
		}
		for {
			out := o.next()
			if len(out) == 0 {
				break
			}
			for _, m := range out {
				if err := w.send(m); err != nil {
					return err
				}
			}
		}
	}
}

// alive returns the figures of the job, as its heartbeat.
func (o *outbox) alive() *load.Stats {
	o.mu.Lock()
	stats := o.stats
	o.mu.Unlock()
	var s load.Stats
	if stats != nil {
		s = stats()
	}
	return &s
}

// next takes out what is to be sent next.
func (o *outbox) next() []message {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []message
	for i := range o.answers {
		out = append(out, message{Time: &o.answers[i]})
	}
	o.answers = nil
	if o.ready {
		out = append(out, message{Ready: &ready{o.window}})
		o.ready = false
	}
	if o.taken > 0 {
		out = append(out, message{Take: o.taken})
		o.taken = 0
	}
	if n := min(len(o.results), maxBatch); n > 0 {
		out = append(out, message{Results: o.results[:n:n]})
		if o.results = o.results[n:]; len(o.results) == 0 {
			o.results = nil
		}
		signal(o.space)
	}
	if o.done != nil && !o.told && len(o.results) == 0 {
		out = append(out, message{Done: o.done})
		o.told = true
	}
	return out
}
