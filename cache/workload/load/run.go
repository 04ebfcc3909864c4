package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/workload/content"
)

// ahead is how many items are read before they are due, so that reading a trace
// delays none.
const ahead = 1024

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
		client: client, unchecked: cfg.Unchecked,
		body: func(uri string, size int64) io.Reader { return made.Body(uri, size) },
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

// job is an item that is sent.
type job struct {
	item Item
	due  time.Time // zero in a closed loop that is not paced
	turn *turn     // of a part of an upload
}

// Run implements Runner. It is called once. The error is that of the source, or why
// ctx ended.
func (e *Engine) Run(ctx context.Context, src Source, sink func(Result)) (Stats, error) {
	e.sink = sink
	start := time.Now()
	if !e.cfg.Start.IsZero() {
		start = start.Add(e.cfg.Start.Sub(start)) // keeps the monotonic reading
	}
	items := make(chan job, ahead)
	// What ends the reading must not end the requests that are under way.
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer close(items)
		return e.read(reading, src, items)
	})
	if wait(ctx, start) {
		e.gauge.begin(start)
		if e.cfg.Closed {
			e.closed(ctx, start, items)
		} else {
			e.open(ctx, start, items)
		}
	}
	stop()
	for range items { // what was read and is not sent any more
	}
	err := g.Wait()
	e.gauge.end()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, context.Canceled):
		err = nil // Duration ended it
	}
	return e.Stats(), err
}

// read reads src into items.
func (e *Engine) read(ctx context.Context, src Source, items chan<- job) error {
	for {
		it, err := src.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("reading what to send: %w", err)
		}
		select {
		case items <- job{item: it, turn: e.do.uploads.claim(&it)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait waits for a time and reports whether it came before ctx ended.
func wait(ctx context.Context, until time.Time) bool {
	d := time.Until(until)
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// over reports whether a time is past Config.Duration.
func (e *Engine) over(start, at time.Time) bool {
	return e.cfg.Duration > 0 && at.Sub(start) >= e.cfg.Duration
}

// open sends each item when it is due, whatever became of those before it. As many
// goroutines are started as are needed at one time.
func (e *Engine) open(ctx context.Context, start time.Time, items <-chan job) {
	var g errgroup.Group
	defer g.Wait() //nolint:errcheck // they return none
	jobs := make(chan job)
	defer close(jobs) // before the wait
	for running := 0; ; {
		j, ok := next(ctx, items)
		j.due = start.Add(j.item.Due)
		if !ok || e.over(start, j.due) || !wait(ctx, j.due) {
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
				e.perform(ctx, j)
				for j := range jobs {
					e.perform(ctx, j)
				}
				return nil
			})
			continue
		}
		e.gauge.cap()
		select {
		case jobs <- j:
		case <-ctx.Done():
			e.perform(ctx, j) // is told to be aborted
			return
		}
	}
}

// closed sends from as many goroutines as there are threads, each an item when its
// last one is done.
func (e *Engine) closed(ctx context.Context, start time.Time, items <-chan job) {
	var g errgroup.Group
	for range e.cfg.Threads {
		g.Go(func() error {
			for {
				j, ok := next(ctx, items)
				at := time.Now()
				if e.cfg.Paced {
					j.due = start.Add(j.item.Due)
					at = j.due
				}
				if !ok || e.over(start, at) || e.cfg.Paced && !wait(ctx, at) {
					j.turn.end()
					return nil
				}
				e.perform(ctx, j)
			}
		})
	}
	g.Wait() //nolint:errcheck // they return none
}

func next(ctx context.Context, items <-chan job) (job, bool) {
	if ctx.Err() != nil {
		return job{}, false
	}
	select {
	case j, ok := <-items:
		return j, ok
	case <-ctx.Done():
		return job{}, false
	}
}

// perform sends an item and tells what became of it.
func (e *Engine) perform(ctx context.Context, j job) {
	defer j.turn.end()
	it := &j.item
	if it.Registry < 0 || it.Registry >= len(e.client.endpoints) {
		it.Registry = 0
	}
	ctx, w := watchOver(ctx, e.cfg.Timeout)
	defer w.end()
	x := &exchange{
		c: e.client, e: e.client.endpoints[it.Registry], w: w,
		client: it.Client, scope: scopeOf(it),
	}
	e.gauge.sent()
	x.began = time.Now()
	a, err := e.do.perform(ctx, x, it, j.turn)
	r := Result{
		Seq: it.Seq, Op: it.Op, Kind: it.Kind, Ranged: it.Len > 0, URI: it.URI, Registry: it.Registry,
		Status: a.Status, Bytes: a.Bytes, Intended: j.due, Sent: x.began,
		First: x.first, Service: time.Since(x.began),
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
