package load

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/workload/content"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// Engine sends items from this process. It is made by New.
type Engine struct {
	cfg    Config
	client *Client
	do     performer
	gauge  gauge

	sinkMu sync.Mutex
	sink   func(Result)
}

var _ Runner = (*Engine)(nil)

// New returns an engine that sends to the registries of cfg.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	client, err := NewClient(cfg)
	if err != nil {
		return nil, err
	}
	made := content.New(cfg.Seed, cfg.Compressible)
	return &Engine{cfg: cfg, client: client, do: performer{
		client: client, unchecked: cfg.Unchecked, maker: made, checks: newChecks(made),
	}}, nil
}

// Close closes the connections that are idle.
func (e *Engine) Close() { e.client.Close() }

// Stats returns how the run goes. It may be called while it does.
func (e *Engine) Stats() Stats {
	s := e.gauge.stats(e.cfg.Closed)
	s.Tokens, s.Renewed = e.client.Tokens()
	return s
}

// Run implements Runner. It is called once. The error is that of the source, or why
// ctx ended.
func (e *Engine) Run(ctx context.Context, src Source, sink func(Result)) (Stats, error) {
	e.sink = sink
	start := time.Now()
	if !e.cfg.Start.IsZero() {
		start = start.Add(e.cfg.Start.Sub(start)) // keeps the monotonic reading
	}
	q := &queue{src: src, uploads: &e.do.uploads}
	// What ends the reading must not end the requests that are under way.
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	if !e.cfg.Closed { // where nothing has a time, there is none to gain
		q.items = make(chan job, ahead)
		g.Go(func() error {
			q.read(reading)
			return nil
		})
	}
	if wait(ctx, start) {
		e.gauge.begin(start)
		if e.cfg.Closed {
			e.closed(ctx, start, q)
		} else {
			e.open(ctx, start, q)
		}
	}
	stop()
	g.Wait() //nolint:errcheck // it returns none
	e.gauge.end()
	if ctx.Err() != nil {
		return e.Stats(), context.Cause(ctx)
	}
	return e.Stats(), q.err
}

// wait waits for a time and reports whether it came before ctx ended.
func wait(ctx context.Context, until time.Time) bool { return pause.For(ctx, time.Until(until)) }

// over reports whether a time is past Config.Duration.
func (e *Engine) over(start, at time.Time) bool {
	return e.cfg.Duration > 0 && at.Sub(start) >= e.cfg.Duration
}

// alarm returns what waits for the times of items.
func (e *Engine) alarm() *alarm {
	if e.cfg.dial == nil {
		if a, err := newAlarm(); err == nil {
			return a
		}
	}
	return &alarm{} // time may be that of a test
}

// open sends each item when it is due, whatever became of those before it. As many
// goroutines are started as are needed at one time.
func (e *Engine) open(ctx context.Context, start time.Time, q *queue) {
	var g errgroup.Group
	defer g.Wait() //nolint:errcheck // they return none
	a := e.alarm()
	defer a.close()
	jobs := make(chan job)
	defer close(jobs) // before the wait
	for running := 0; ; {
		j, ok := q.next(ctx)
		j.due = start.Add(j.item.Due)
		if !ok || e.over(start, j.due) || !a.wait(ctx, j.due) {
			return
		}
		select {
		case jobs <- j: // to one that is idle
			continue
		default:
		}
		if running < e.cfg.MaxInFlight {
			running++
			g.Go(func() error {
				w := newWatch(e.cfg.Timeout)
				defer w.close()
				e.perform(ctx, w, j)
				for j := range jobs {
					e.perform(ctx, w, j)
				}
				return nil
			})
			continue
		}
		e.gauge.cap()
		select {
		case jobs <- j:
		case <-ctx.Done():
			w := newWatch(e.cfg.Timeout)
			defer w.close()
			e.perform(ctx, w, j) // is told to be aborted
			return
		}
	}
}

// closed sends from as many goroutines as there are threads, each an item when its
// last one is done.
func (e *Engine) closed(ctx context.Context, start time.Time, q *queue) {
	var g errgroup.Group
	for range e.cfg.Threads {
		g.Go(func() error {
			w := newWatch(e.cfg.Timeout)
			defer w.close()
			for {
				j, ok := q.next(ctx)
				at := time.Now()
				if e.cfg.Paced {
					j.due = start.Add(j.item.Due)
					at = j.due
				}
				if !ok || e.over(start, at) || e.cfg.Paced && !wait(ctx, at) {
					j.turn.end()
					return nil
				}
				e.perform(ctx, w, j)
			}
		})
	}
	g.Wait() //nolint:errcheck // they return none
}

// perform sends an item and tells what became of it.
func (e *Engine) perform(ctx context.Context, w *watch, j job) {
	defer j.turn.end()
	it := &j.item
	if it.Registry < 0 || it.Registry >= len(e.client.endpoints) {
		it.Registry = 0
	}
	ctx = w.begin(ctx)
	defer w.end()
	x := &exchange{
		c: e.client, e: e.client.endpoints[it.Registry], w: w,
		client: it.Client, scope: func() string { return scopeOf(it) },
	}
	e.gauge.sent()
	x.began = time.Now()
	a, err := e.do.perform(ctx, x, it, j.turn)
	r := Result{
		Seq: it.Seq, Op: it.Op, Kind: it.Kind, Ranged: it.Len > 0, URI: it.URI, Registry: it.Registry,
		Status: a.Status, Bytes: a.Bytes, Intended: j.due, Sent: x.began,
		First: x.first, Service: x.last,
	}
	if x.last == 0 { // it waited for its turn only
		r.Service = time.Since(x.began)
	}
	if j.due.IsZero() {
		r.Intended = r.Sent
	}
	r.Late = max(0, r.Sent.Sub(r.Intended))
	if e.cfg.Closed {
		r.Intended = r.Sent
	}
	r.Latency = r.Service + max(0, r.Sent.Sub(r.Intended))
	if err != nil {
		f := failure(ctx, err)
		r.Cause, r.Err = f.Cause, f.Error()
		if it.Absent && f.Cause == CauseStatus && f.Status == 404 {
			r.Cause, r.Err = CauseNone, ""
		}
	}
	if a.Header != nil {
		r.Outcome = outcome(a.Header)
	}
	e.gauge.ended(&r, err)
	e.sinkMu.Lock()
	defer e.sinkMu.Unlock()
	e.sink(r)
}
