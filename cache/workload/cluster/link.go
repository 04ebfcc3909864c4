package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// link is a master's side of a connection.
type link struct {
	*Master
	addr      string
	cut       context.CancelCauseFunc // ends the connection
	transport *http.Transport
	in        io.ReadCloser
	out       *io.PipeWriter
	wire      *wire
	prover    prover
	clocks    sample // when the run began

	wake  chan struct{} // there is something to send, or it is over
	ready chan struct{} // is closed when the client has the job, or is over
	over  chan struct{} // is closed when nothing more comes of the client

	mu      sync.Mutex
	open    map[uint64]load.Item // what became of them is not known
	pending []load.Item          // of those, the ones that were not sent yet
	credit  int                  // items that may be sent
	end     bool                 // no more will be pushed
	told    bool                 // the client was told so, or will be at once
	abort   error                // why the client is told to abort; nil: it is not
	grace   *time.Timer          // after which it is lost then
	status  Status
}

func newLink(m *Master, addr string) *link {
	return &link{
		Master: m, addr: addr,
		wake: make(chan struct{}, 1), ready: make(chan struct{}), over: make(chan struct{}),
		open: map[uint64]load.Item{}, status: Status{Client: addr, State: Connecting},
	}
}

// close closes the connection. It may not have been opened.
func (l *link) close() {
	l.cut(nil)
	l.mu.Lock()
	if l.grace != nil {
		l.grace.Stop()
	}
	l.mu.Unlock()
	if l.out != nil {
		l.out.Close()
		l.in.Close()
	}
	if l.transport != nil {
		l.transport.CloseIdleConnections()
	}
}

// push gives the client an item. It reports false if the client takes none any more,
// and whether it was lost.
func (l *link) push(it load.Item) (taken, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.State == Done || l.status.State == Lost {
		return false, l.status.State == Lost
	}
	l.status.Items++
	l.open[it.Seq] = it
	l.pending = append(l.pending, it)
	l.queued.Add(1)
	signal(l.wake)
	return true, false
}

// room reports whether a client in a closed loop is not yet given more than it takes.
func (l *link) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending) < maxPending
}

// takes reports whether the client is there.
func (l *link) takes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status.State != Done && l.status.State != Lost
}

// finish tells that no more items are pushed.
func (l *link) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = true
	signal(l.wake)
}

// stop tells the client to abort. If it does not end soon it is lost.
func (l *link) stop(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.abort == nil {
		l.abort = why
		signal(l.wake)
		l.grace = time.AfterFunc(misses*l.cfg.Heartbeat+closing, func() {
			l.cut(fmt.Errorf("it did not abort: %w", why))
		})
	}
}

// inherit takes items, in their order, that another client was not sent, before those
// that are due later. It reports false if the client takes none any more.
func (l *link) inherit(items []load.Item) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told || l.abort != nil || l.status.State != Ready {
		return false
	}
	own := l.pending
	l.pending = make([]load.Item, 0, len(own)+len(items))
	for _, it := range items {
		n, _ := slices.BinarySearchFunc(own, it, bySeq)
		l.pending = append(append(l.pending, own[:n]...), it)
		own = own[n:]
		l.open[it.Seq] = it
	}
	l.pending = append(l.pending, own...)
	l.status.Items += uint64(len(items))
	l.queued.Add(int64(len(items)))
	signal(l.wake)
	return true
}

// miss counts an item for a client that is lost.
func (l *link) miss() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Items++
	l.status.Lost++
}

// feed sends what there is to send, and heartbeats, until nothing more comes of the
// client.
func (l *link) feed() error {
	beats := time.NewTicker(l.cfg.Heartbeat)
	defer beats.Stop()
	defer l.out.Close()
	what := &order{l.cfg.Job, l.clock.of(l.start) + int64(l.clocks.offset)}
	err := l.wire.send(message{Order: what})
	for ended, aborted := false, false; err == nil; {
		items, end, abort := l.next()
		switch {
		case abort != nil && !aborted:
			aborted = true
			err = l.wire.send(message{Abort: abort.Error()})
		case aborted: // and what is pending stays here
		case len(items) > 0:
			if err = l.wire.send(message{Items: items}); err == nil {
				continue
			}
		case end && !ended:
			ended = true
			err = l.wire.send(message{End: true})
		}
		if err != nil {
			break
		}
		select {
		case <-l.wake:
		case <-beats.C:
			err = l.wire.send(message{Time: &timing{Asked: l.clock.now()}})
		case <-l.over:
			return nil
		}
	}
	return err
}

// next takes out the items that are sent next. end is that there are no more.
func (l *link) next() (items []load.Item, end bool, abort error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.abort != nil {
		return nil, false, l.abort
	}
	n := min(len(l.pending), l.credit, maxItems)
	if n > 0 {
		items = l.pending[:n:n]
		if l.pending = l.pending[n:]; len(l.pending) == 0 {
			l.pending = nil
		}
		l.credit -= n
		l.queued.Add(-int64(n))
		signal(l.space)
	}
	l.told = l.end && len(l.pending) == 0
	return items, l.told, nil
}

// hear takes what the client tells until the job is done, and returns why it is not.
func (l *link) hear(ctx context.Context) error {
	w := watchOver(misses*l.cfg.Heartbeat, l.cut)
	defer w.pause()
	for {
		w.heard()
		m, err := l.wire.receive(maxLine)
		w.pause() // the sink may take its time
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errLine) || errors.Is(err, errMessage):
			return err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrGone, err)
		case m.Done != nil:
			return l.ended(m.Done)
		}
		if err := l.take(m); err != nil {
			return err
		}
	}
}

// take takes a message of a client that has the job.
func (l *link) take(m message) error {
	switch {
	case m.Results != nil:
		return l.settle(m.Results)
	case m.Time != nil:
		l.compared(l.clock.sampleOf(*m.Time))
	case m.Beat != nil:
		l.mu.Lock()
		l.status.Stats = *m.Beat
		l.mu.Unlock()
	case m.Take > 0 && m.Take <= maxWindow:
		l.grant(m.Take)
	case m.Ready != nil && m.Ready.Window > 0 && m.Ready.Window <= maxWindow && l.begun():
		l.grant(m.Ready.Window)
	default:
		return errUnexpected
	}
	return nil
}

// begun notes that the client has the job. It reports false if it did before.
func (l *link) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.State != Connecting {
		return false
	}
	l.status.State = Ready
	close(l.ready)
	return true
}

func (l *link) grant(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.credit += n
	signal(l.wake)
}

// compared takes a reading of the client's clock. One that was long under way says
// little.
func (l *link) compared(s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.rtt <= 2*l.clocks.rtt {
		l.status.Drift = s.offset - l.clocks.offset
	}
}

// settle tells the sink what became of items.
func (l *link) settle(results []result) error {
	for _, p := range results {
		l.mu.Lock()
		it, ok := l.open[p.Seq]
		if ok {
			delete(l.open, p.Seq)
			l.status.Ended++
		}
		l.mu.Unlock()
		if !ok {
			return fmt.Errorf("it told of item %d, which it does not have", p.Seq)
		}
		l.tell(p.unpack(&it, l.start))
	}
	return nil
}

// ended takes the end of the job. Items that were not sent because the job was
// aborted or its time was up are forgotten, as an engine does not read them.
func (l *link) ended(d *done) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Stats = d.Stats
	switch {
	case l.abort != nil:
	case d.Err != "":
		return errors.New(d.Err)
	case l.cfg.Job.Load.Duration > 0:
	case len(l.open) > 0 || !l.end:
		return fmt.Errorf("it ended with %d items open", len(l.open))
	}
	l.leave(Done)
	return nil
}

// leave makes a client one of which nothing more comes. l.mu is held.
func (l *link) leave(state State) {
	if l.status.State == Connecting {
		close(l.ready)
	}
	l.status.State = state
	l.queued.Add(-int64(len(l.pending)))
	l.pending = nil
	clear(l.open)
	close(l.over)
	signal(l.space)
}

// lose gives the client up, and tells the sink of what it had. It returns what may be
// given to others.
func (l *link) lose(err error) (unsent []load.Item) {
	l.mu.Lock()
	if l.cfg.Loss == Takeover && l.abort == nil {
		unsent = l.pending
	}
	for _, it := range unsent {
		delete(l.open, it.Seq)
	}
	l.status.Items -= uint64(len(unsent))
	lost := sorted(l.open)
	l.status.Lost = uint64(len(lost))
	l.status.Err = err.Error()
	l.leave(Lost)
	l.mu.Unlock()
	for i := range lost {
		l.tell(l.lostResult(&lost[i]))
	}
	return unsent
}
