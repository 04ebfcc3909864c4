package replayer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/reprise-containers/reprise/cache/workload/plugin"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cache/workload/trace"
	"github.com/reprise-containers/reprise/cmd/internal/replayconfig"
	"github.com/reprise-containers/reprise/cmd/internal/replayprogress"
	"github.com/reprise-containers/reprise/cmd/internal/yamlfile"
)

// Simulate runs the plugin that the configuration names, or the simulator.
func (p *Replayer) Simulate(ctx context.Context) error {
	if err := p.Config.For(replayconfig.ModeSimulate); err != nil {
		return err
	}
	open, work := p.open, p.simulator
	if p.Config.Simulate.Name != "" {
		open, work = p.openOriginal, p.plugin
	}
	t, err := open()
	if err != nil {
		return err
	}
	defer t.Close()
	defer p.tell(t)
	return work(ctx, t)
}

// plugin runs a plugin: a file, or where there is none of that name what is built in
// under it.
func (p *Replayer) plugin(ctx context.Context, r *reading) error {
	name, args := p.Config.Simulate.Name, p.Config.Simulate.Args
	path, err := pluginFile(name)
	if err == nil {
		return plugin.Run(ctx, path, r, args, p.Out, p.errors())
	}
	known := strings.TrimSuffix(filepath.Base(name), ".py")
	if run := builtIn[known]; run != nil && errors.Is(err, fs.ErrNotExist) && filepath.Base(name) == name {
		p.logf("there is no file %s here: the simulator of that name that is built in is run", name)
		return run(ctx, r, args, p.Out)
	}
	return err
}

// builtIn are the simulators that came with the original.
var builtIn = map[string]plugin.Func{"cache": simulate.OriginalCache, "prefetch": simulate.OriginalPrefetch}

// pluginFile returns the file of a plugin: as it is named, or with .py behind it.
func pluginFile(name string) (string, error) {
	_, err := os.Stat(name)
	if err == nil {
		return name, nil
	}
	if filepath.Ext(name) == "" {
		if _, e := os.Stat(name + ".py"); e == nil {
			return name + ".py", nil
		}
	}
	return "", fmt.Errorf("finding the plugin: %w", err)
}

// errors is where a plugin's interpreter complains.
func (p *Replayer) errors() io.Writer {
	if p.Log == nil {
		return io.Discard
	}
	return p.Log
}

func (p *Replayer) logf(format string, args ...any) {
	if p.Log != nil {
		fmt.Fprintf(p.Log, format+"\n", args...)
	}
}

// simulator runs the simulator.
func (p *Replayer) simulator(ctx context.Context, t *reading) error {
	scope, cfg, err := p.simulation()
	if err != nil {
		return err
	}
	to := p.Config.Simulate.Report
	if err := writable(to.JSON, to.CSV, to.HTML, p.Config.Simulate.Cluster.CSV); err != nil {
		return err
	}
	var r trace.Reader = t
	var ahead *simulate.Prefetcher
	if f := p.Config.Simulate.Prefetch; f != nil {
		ahead, err = simulate.NewPrefetcher(simulate.Prefetch{
			Pushed: f.Pushed.Std(), Fetched: f.Fetched.Std(), Identity: simulate.LayerIdentity(f.Identity),
		})
		if err != nil {
			return err
		}
		r = ahead.Through(r)
	}
	var m simulating
	cfg.Progress = m.ended
	var report *simulate.Report
	var advice *simulate.Advice
	err = replayprogress.During(ctx, p.Log, func() replayprogress.State { return m.state(t) }, func(ctx context.Context) (err error) {
		report, advice, err = p.simulate(ctx, r, scope, cfg, &m)
		return err
	})
	if err != nil {
		return err
	}
	if ahead != nil {
		report.Prefetch = ahead.Cells()
	}
	if err := report.WriteText(p.Out); err != nil {
		return err
	}
	if advice == nil {
		return p.writeSimulation(report, nil)
	}
	fmt.Fprintln(p.Out)
	if err := advice.WriteText(p.Out); err != nil {
		return err
	}
	return p.writeSimulation(report, advice.Reasons)
}

// simulating is how far a simulation is.
type simulating struct {
	mu    sync.Mutex
	whole bool    // the trace is simulated after it was read
	done  float64 // of the simulations
}

func (m *simulating) ended(n, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = max(m.done, float64(n)/float64(all))
}

func (m *simulating) after() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.whole = true
}

func (m *simulating) state(t *reading) replayprogress.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.whole {
		return replayprogress.State{Fraction: t.fraction()}
	}
	// Reading and simulating take about as long as each other.
	return replayprogress.State{Fraction: (t.fraction() + m.done) / 2}
}

// simulate simulates a trace while it is read, without holding it, if what is asked
// for needs no second look at it.
func (p *Replayer) simulate(ctx context.Context, r trace.Reader, scope simulate.Scope, cfg simulate.Config, m *simulating) (*simulate.Report, *simulate.Advice, error) {
	limits := simulate.Limits{Disk: int64(p.Config.Simulate.Advise)}
	if limits.Disk == 0 {
		report, err := simulate.Stream(ctx, r, scope, cfg)
		if !errors.Is(err, simulate.ErrWhole) { // which it returns before it reads
			return report, nil, err
		}
	}
	m.after()
	d, err := simulate.Decode(ctx, r, scope)
	if err != nil {
		return nil, nil, err
	}
	report, err := simulate.Run(ctx, d, cfg)
	if err != nil || limits.Disk == 0 {
		return report, nil, err
	}
	advice, err := simulate.Recommend(ctx, d, limits)
	return report, advice, err
}

// simulation returns what the configuration asks to be simulated.
func (p *Replayer) simulation() (simulate.Scope, simulate.Config, error) {
	c := p.Config.Simulate
	scope := simulate.Scope{Key: simulate.Identity(c.Key), Unit: c.Unit, Writes: p.Config.Trace.Compat}
	for _, k := range c.Kinds {
		scope.Kinds = append(scope.Kinds, map[string]trace.Kind{"blob": trace.Blob, "manifest": trace.Manifest}[k])
	}
	cfg := simulate.Config{
		Policies: c.Policies,
		GC: simulate.GC{
			Layers:    simulate.Ages{MaxAge: c.GC.Layers.MaxAge.Std(), MaxUnused: c.GC.Layers.MaxUnused.Std()},
			Manifests: simulate.Ages{MaxAge: c.GC.Manifests.MaxAge.Std(), MaxUnused: c.GC.Manifests.MaxUnused.Std()},
			Interval:  c.GC.Interval.Std(),
		},
		Curve: simulate.CurveConfig{Exact: c.Curve.Exact},
	}
	if c.Curve.Shards > 0 {
		cfg.Curve.Shards = []float64{c.Curve.Shards}
	}
	var errs []error
	sizes := func(key string, texts ...string) (out []simulate.Size) {
		for _, text := range texts {
			s, err := simulate.ParseSize(text, bytes)
			if err != nil {
				errs = append(errs, fmt.Errorf("simulate.%s: %w", key, err))
			}
			out = append(out, s)
		}
		return out
	}
	cfg.Sizes, cfg.PerNode = sizes("sizes", c.Sizes...), sizes("per_node", c.PerNode...)
	if n := c.GC.Disk.MaxSize; n > 0 {
		cfg.Sizes = append(cfg.Sizes, simulate.Size{Bytes: int64(n)})
	}
	for _, l := range c.Levels {
		both := sizes("levels", l.Memory, l.Disk)
		cfg.Levels = append(cfg.Levels, simulate.Levels{Memory: both[0], Disk: both[1]})
	}
	if c := c.Cluster; len(c.Replicas) > 0 {
		cfg.Cluster = replicas(c)
		cfg.Cluster.L1 = sizes("cluster.l1", c.L1)[0]
		if c.Tier != "" {
			cfg.Cluster.L2 = sizes("cluster.tier", c.Tier)[0]
		}
	}
	return scope, cfg, errors.Join(errs...)
}

// replicas returns a cluster that is to be simulated, without its sizes.
func replicas(c replayconfig.SimulatedCluster) simulate.Cluster {
	line := func(l replayconfig.SimulatedLine) simulate.Line {
		return simulate.Line{Latency: l.Latency.Std(), Rate: int64(l.Bandwidth)}
	}
	return simulate.Cluster{
		Replicas: c.Replicas, Spread: simulate.Spread(c.Spread), Policy: c.Policy, Divide: c.Divide,
		NoRedis: !c.Redis, NoPeers: !c.Peers, Rate: c.Rate, Upstream: line(c.Upstream), Peer: line(c.Peer), Tier: line(c.L2),
		DropEvicted: c.DropEvicted, Keep: c.Keep.Std(), LeaseTTL: c.LeaseTTL.Std(), Beat: c.Beat.Std(), PermissionTTL: c.Permissions.Std(),
		Memory: simulate.RedisMemory{Blob: int64(c.Memory.Blob), Holder: int64(c.Memory.Holder), Stored: int64(c.Memory.Stored), Token: int64(c.Memory.Token), Permit: int64(c.Memory.Permit)},
	}
}

// bytes parses a size in bytes.
func bytes(text string) (int64, error) {
	n, err := yamlfile.ParseSize(text)
	return int64(n), err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(v)
}
