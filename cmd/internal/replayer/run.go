package replayer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/cluster"
	"github.com/reprise-containers/reprise/cache/workload/load"
	"github.com/reprise-containers/reprise/cache/workload/outcome"
	"github.com/reprise-containers/reprise/cache/workload/report"
	"github.com/reprise-containers/reprise/cache/workload/schedule"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
)

// ErrFailed is wrapped by the error of a run in which requests failed.
var ErrFailed = errors.New("requests failed")

// errIdle is that of a run whose trace has nothing to send.
var errIdle = errors.New("nothing was sent: the trace has no request that can be replayed, or the interim map is of another trace")

// run is a run that is under way.
type run struct {
	p       *Replayer
	bases   []string
	sending load.Config
	known   outcome.Map
	first   *reading                // of the first round
	loop    trace.Reader            // of all rounds
	reading atomic.Pointer[reading] // of the round that is read
	items   *schedule.Source
	rec     *report.Recorder
	metrics *metrics.Replay
	results *outcome.Results
}

// Run replays the trace. What has ended is in the results file, the summary and the
// reports, however the run ends. Its error is that something else than requests went
// wrong, or ErrFailed.
func (p *Replayer) Run(ctx context.Context) (err error) {
	r, err := p.newRun()
	if err != nil {
		return err
	}
	if r.items, err = r.source(); err != nil {
		return err
	}
	defer r.close()
	runner, end, err := r.runner()
	if err != nil {
		return err
	}
	defer end()
	if r.results, err = outcome.Create(p.Config.Trace.Output, p.Config.Registry, p.Config.Run.OnTime.Std()); err != nil {
		return err
	}
	stop, err := r.watch()
	if err != nil {
		return errors.Join(err, r.results.Close())
	}
	defer stop()
	defer lessOften()()
	work := func(ctx context.Context) error { return r.send(ctx, runner, r.items) }
	during := func() error { return replayprogress.During(ctx, p.Log, r.state, work) }
	if m, ok := runner.(*cluster.Master); ok {
		err = r.withLosses(m, during)
	} else {
		err = during()
	}
	if e := r.results.Close(); err == nil {
		err = e
	}
	return r.finish(err, r.items.Stats())
}

// send has the runner send, and notes what becomes of it. That results cannot be
// written ends the run.
func (r *run) send(ctx context.Context, runner load.Runner, source load.Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var flushing sync.WaitGroup
	defer flushing.Wait()
	defer cancel(nil)
	var mu sync.Mutex // of results
	written := func(write func() error) {
		mu.Lock()
		defer mu.Unlock()
		if err := write(); err != nil {
			cancel(err)
		}
	}
	flushing.Go(func() { // what is known is in the file, also while nothing comes
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				written(r.results.Flush)
			}
		}
	})
	stats, err := runner.Run(ctx, source, func(x load.Result) {
		r.rec.Add(x)
		if r.p.Config.Report.Metrics != "" { // nobody else looks at them
			r.metrics.Observe(x)
		}
		written(func() error { return r.results.Add(x) })
	})
	r.rec.Generator(stats)
	return err
}

func (p *Replayer) newRun() (*run, error) {
	if err := p.Config.For(replayconfig.ModeRun); err != nil {
		return nil, err
	}
	r := &run{p: p}
	c := p.Config
	err := writable(c.Report.JSON, c.Report.CSV, c.Report.HTML)
	if err != nil {
		return nil, err
	}
	if r.known, err = p.known(); err != nil {
		return nil, err
	}
	r.sending = load.Config{
		Closed: c.Closed(), Threads: c.ClientInfo.Threads, MaxInFlight: c.Run.MaxInFlight, Timeout: c.Run.Timeout.Std(),
		Seed: c.Warmup.Seed, Unchecked: !c.Run.Check, Compressible: p.zeros(), Duration: c.Run.For.Std(),
	}
	if c.Trace.Compat {
		// As the original: a slow answer delays what is behind it, and it waits only
		// if it is told to.
		r.sending.Closed, r.sending.Paced = true, c.Paced()
	}
	if r.sending.Registries, err = p.registries(); err != nil {
		return nil, err
	}
	for _, x := range r.sending.Registries {
		r.bases = append(r.bases, x.Base)
	}
	r.rec, r.metrics = report.New(r.bases), metrics.NewReplay(r.bases)
	return r, nil
}

// known returns the interim map; without a warmup requests are sent as recorded.
func (p *Replayer) known() (outcome.Map, error) {
	path := p.Config.Warmup.Output
	if path == "" {
		return nil, nil
	}
	m, err := outcome.ReadMap(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: warmup makes it (or leave warmup.output out, to ask for what was recorded)", err)
	}
	return m, err
}

// source returns what is sent: the trace, as often as it is replayed.
func (r *run) source() (*schedule.Source, error) {
	c := r.p.Config
	// What cannot be read is to be said before anything is sent.
	var err error
	if r.first, err = r.p.open(); err != nil {
		return nil, err
	}
	first := r.first
	r.loop = trace.Loop(func() (trace.Reader, error) {
		next := first
		if first = nil; next == nil {
			var err error
			if next, err = r.p.open(); err != nil {
				return nil, err
			}
		}
		r.reading.Store(next)
		return next, nil
	}, c.Run.Loop)
	source, err := schedule.New(r.loop, schedule.Config{
		Map: r.known, Speed: c.Run.Speed, Rate: c.Run.Rate, Poisson: c.Run.Poisson, Ramp: c.Run.Ramp.Std(),
		Untimed: r.sending.Closed && !r.sending.Paced, Registries: len(r.bases), Pick: schedule.Pick(c.Run.Pick), Seed: c.Run.Seed,
		NS: c.Run.NS, Repository: r.p.repository(), Blobs: r.p.asBlobs(), Uploads: schedule.Uploads(c.Run.Uploads), Compat: c.Trace.Compat,
	})
	if err != nil {
		r.close()
	}
	return source, err
}

// close closes the traces.
func (r *run) close() {
	if c, ok := r.loop.(io.Closer); ok {
		c.Close()
	}
	r.first.Close() // which the loop may not have begun
}

// watch serves metrics until stop is called.
func (r *run) watch() (stop func(), err error) {
	addr := r.p.Config.Report.Metrics
	if addr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serving metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.metrics.Handler())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = s.Serve(l) // that it was closed
	}()
	return func() { s.Close(); <-done }, nil
}

// state is how far the run is: of one that is looped nobody knows.
func (r *run) state() replayprogress.State {
	s := replayprogress.State{Fraction: -1, Totals: r.rec.Totals()}
	// The trace is read ahead of what is sent.
	if t := r.reading.Load(); t != nil && r.p.Config.Run.Loop == 1 {
		s.Fraction = t.fraction() * report.Ratio(float64(s.Requests), float64(r.items.Stats().Items))
	}
	return s
}

// finish says what came of the run, and returns the error that it ends with.
func (r *run) finish(err error, left schedule.Stats) error {
	c := r.p.Config
	s := r.rec.Snapshot()
	s.Title = "Replay of " + list(c.Trace.Traces)
	s.Settings = r.settings()
	s.Notes = r.notes(left)
	if errors.Is(err, schedule.ErrUntimed) {
		err = fmt.Errorf("%w (run.rate, or client_info.wait: false)", err)
	}
	if err == nil && s.Ended().Count == 0 {
		err = errIdle
	}
	if err != nil {
		what := "The run ended early: "
		if wentOn(err) && s.Ended().Count > 0 && c.Cluster.Lost != string(cluster.Stop) {
			what = "A client was lost: "
		}
		s.Notes = append(s.Notes, what+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if e := s.WriteText(r.p.Out); err == nil {
		err = e
	}
	if e := r.p.writeRun(s); err == nil {
		err = e
	}
	if n := s.Failed().Count; err == nil && n > 0 {
		return fmt.Errorf("%d of %d %w", n, s.Ended().Count, ErrFailed)
	}
	return err
}

// notes says what of the trace and of the configuration had no effect.
func (r *run) notes(left schedule.Stats) (out []string) {
	for _, why := range sorted(left.LeftOut) {
		out = append(out, fmt.Sprintf("%d requests of the trace were not sent: %s", left.LeftOut[why], leftOut[why]))
	}
	out = append(out, r.first.notes()...)
	if x := r.p.Config.Run; r.sending.Closed && !r.sending.Paced && (x.Rate > 0 || x.Speed != 1 || x.Ramp > 0) {
		out = append(out, "run.speed, run.rate and run.ramp have no effect in a closed loop (client_info.wait: false)")
	}
	return out
}

// leftOut says in words why requests are left out.
var leftOut = map[schedule.Reason]string{
	schedule.Bad:         "warmup could not push what they ask for",
	schedule.Unknown:     "warmup pushed nothing for them",
	schedule.Part:        "they are parts of uploads that were sent as a whole",
	schedule.Unsupported: "their kind is not replayed",
	schedule.Refused:     "the recorded registry refused them",
}

func sorted[V any](m map[schedule.Reason]V) (keys []schedule.Reason) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// settings are the lines of the report on how the run was made.
func (r *run) settings() []report.Setting {
	c := r.p.Config
	how := "open loop: requests are sent when they are due"
	switch {
	case r.sending.Paced:
		how = fmt.Sprintf("closed loop of %d, with waits, as the original", r.sending.Threads)
	case r.sending.Closed:
		how = fmt.Sprintf("closed loop of %d", r.sending.Threads)
	}
	pace := fmt.Sprintf("%g times as fast as recorded", c.Run.Speed)
	if c.Run.Rate > 0 {
		pace = fmt.Sprintf("%g requests a second", c.Run.Rate)
	}
	out := []report.Setting{{Name: "registries", Value: list(r.bases)}, {Name: "requests", Value: how}}
	if !r.sending.Closed || r.sending.Paced {
		out = append(out, report.Setting{Name: "pace", Value: pace})
	}
	if n := len(c.ClientInfo.ClientList); n > 0 {
		out = append(out, report.Setting{Name: "clients", Value: list(c.ClientInfo.ClientList)})
	}
	return out
}

// runner returns what sends: this process, or clients on other machines.
func (r *run) runner() (load.Runner, func(), error) {
	if len(r.p.Config.ClientInfo.ClientList) > 0 {
		return r.master()
	}
	e, err := load.New(r.sending)
	if err != nil {
		return nil, nil, err
	}
	return e, e.Close, nil
}

var _ io.Closer = (*reading)(nil) // which trace.Loop closes
