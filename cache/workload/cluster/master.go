package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Master sends items through clients. It is made by New, and runs once.
type Master struct {
	cfg   MasterConfig
	key   []byte
	clock clock
	links []*link
	start time.Time

	queued atomic.Int64  // items that wait here
	space  chan struct{} // there is room for more, or a client left

	sinkMu sync.Mutex
	sink   func(load.Result)

	mu   sync.Mutex
	turn int // of the links
	errs []error
	stop context.CancelCauseFunc // ends the dealing
}

var _ load.Runner = (*Master)(nil)

// New returns a master of the clients of cfg. It does not connect to them yet.
func New(cfg MasterConfig) (*Master, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	key, err := keyOf(cfg.Secret)
	if err != nil {
		return nil, err
	}
	m := &Master{cfg: cfg.withDefaults(), key: key, clock: newClock(0), space: make(chan struct{}, 1)}
	if m.cfg.Job.ID == "" {
		m.cfg.Job.ID = fmt.Sprintf("%x", newNonce()[:6])
	}
	for _, addr := range cfg.Clients {
		m.links = append(m.links, newLink(m, addr))
	}
	return m, nil
}

// Run implements load.Runner. A client that cannot begin is an error, and nothing is
// sent. One that is lost later is an error when the rest is done. Each is a
// *ClientError; they are joined.
func (m *Master) Run(ctx context.Context, src load.Source, sink func(load.Result)) (load.Stats, error) {
	m.sink = sink
	lives := make([]context.Context, len(m.links)) // of the connections
	for i, l := range m.links {
		// They outlive ctx, so that clients can tell what they aborted.
		lives[i], l.cut = context.WithCancelCause(context.WithoutCancel(ctx))
		defer l.close()
	}
	if err := m.connect(ctx, lives); err != nil {
		return load.Stats{}, err
	}
	m.start = m.clock.time(m.clock.now() + int64(m.cfg.StartIn))
	dealing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	m.stop = stop
	release := context.AfterFunc(ctx, func() { m.abort(context.Cause(ctx)) })
	defer release()

	var g errgroup.Group
	for i, l := range m.links {
		g.Go(func() error {
			m.attend(lives[i], l)
			return nil
		})
	}
	err := m.await()
	if err == nil {
		err = m.deal(dealing, src)
	}
	for _, l := range m.links {
		l.finish()
	}
	g.Wait() //nolint:errcheck // they return none
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return m.Stats(), errors.Join(append([]error{err}, m.errs...)...)
}

// connect connects to all clients, and returns why it could not.
func (m *Master) connect(ctx context.Context, lives []context.Context) error {
	release := context.AfterFunc(ctx, func() {
		for _, l := range m.links {
			l.cut(context.Cause(ctx))
		}
	})
	defer release()
	var g errgroup.Group
	var connecting sync.WaitGroup
	connecting.Add(len(m.links))
	all := make(chan struct{})
	for i, l := range m.links {
		g.Go(func() error {
			err := l.connect(lives[i])
			connecting.Done()
			if err != nil {
				l.lose(err)
				m.failed(l, err)
				return nil
			}
			l.keep(all)
			return nil
		})
	}
	connecting.Wait()
	close(all)
	g.Wait() //nolint:errcheck // they return none
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.errs...)
}

// await waits until all clients have the job. One that has it not when they begin is
// lost, and one that is lost ends the run.
func (m *Master) await() error {
	late := time.AfterFunc(time.Until(m.start), func() {
		for _, l := range m.links {
			select {
			case <-l.ready:
			default:
				l.cut(errors.New("it was not ready at the start"))
			}
		}
	})
	defer late.Stop()
	for _, l := range m.links {
		<-l.ready
	}
	for _, l := range m.links {
		if !l.takes() {
			err := errors.New("not all clients could begin")
			m.abort(err)
			return err
		}
	}
	return nil
}

// attend tells a client what to do and takes what it tells, until it is done or lost.
func (m *Master) attend(ctx context.Context, l *link) {
	var g errgroup.Group
	g.Go(func() error {
		if err := l.feed(); err != nil {
			l.cut(fmt.Errorf("%w: %w", ErrGone, err))
		}
		return nil
	})
	if err := l.hear(ctx); err != nil {
		unsent := l.lose(err)
		l.cut(err)
		m.failed(l, err)
		m.lost(unsent, err)
	} else {
		m.left()
		late := time.AfterFunc(closing, func() { l.cut(nil) })
		io.Copy(io.Discard, l.in) //nolint:errcheck // all was told
		late.Stop()
	}
	g.Wait() //nolint:errcheck // it returns none
	l.close()
}

// failed notes why a client is lost.
func (m *Master) failed(l *link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, &ClientError{l.addr, err})
}

// lost goes on without a client as it is configured. What was not sent to it goes to
// others.
func (m *Master) lost(unsent []load.Item, err error) {
	if m.cfg.Loss == Stop {
		m.abort(err)
	}
	heirs := map[*link][]load.Item{}
	for i := range unsent {
		l := m.heir(&unsent[i])
		heirs[l] = append(heirs[l], unsent[i])
	}
	for l, items := range heirs {
		if l != nil && l.inherit(items) {
			continue
		}
		for i := range items {
			m.tell(m.lostResult(&items[i]))
		}
	}
	m.left()
}

// left ends the dealing if there are no clients any more.
func (m *Master) left() {
	if !slices.ContainsFunc(m.links, (*link).takes) {
		m.stop(errors.New("there are no clients any more"))
	}
}

// abort tells all clients to abort.
func (m *Master) abort(why error) {
	m.stop(why)
	for _, l := range m.links {
		l.stop(why)
	}
}

// tell tells the sink what became of an item.
func (m *Master) tell(r load.Result) {
	m.sinkMu.Lock()
	defer m.sinkMu.Unlock()
	m.sink(r)
}

// lostResult is what is told of an item of a client that is gone.
func (m *Master) lostResult(it *load.Item) load.Result {
	at := time.Now()
	if m.timed() {
		at = m.start.Add(it.Due)
	}
	return load.Result{
		Seq: it.Seq, Op: it.Op, Kind: it.Kind, Ranged: it.Len > 0, URI: it.URI, Registry: it.Registry,
		Intended: at, Sent: at, Cause: load.CauseLost, Err: "the client that had it is gone",
	}
}

// timed reports whether items are sent when they are due.
func (m *Master) timed() bool { return !m.cfg.Job.Load.Closed || m.cfg.Job.Load.Paced }
