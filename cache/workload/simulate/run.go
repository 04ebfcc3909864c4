package simulate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Config says what is simulated over a trace.
type Config struct {
	Policies []string // of package policy, and Belady
	Sizes    []Size   // each policy at each
	GC       GC       // for all of them but Belady
	Levels   []Levels
	// PerNode are the sizes of caches on each node, each with the first of Policies,
	// before shared ones of all Policies and Sizes.
	PerNode []Size
	// Cluster is of replicas that share what they have.
	Cluster Cluster
	// Curve is of the miss-ratio curves.
	Curve CurveConfig
	// Workers is how many simulations run at a time. Default the number of processors.
	Workers int
	// Progress is told of each simulation that ended. It may be nil; it is called in
	// parallel.
	Progress func(done, all int)
}

// Report is what was simulated. It has a JSON form.
type Report struct {
	Requests int           `json:"requests"`
	Objects  int           `json:"objects"`
	Bytes    int64         `json:"bytes"` // of all objects; with Unit their number
	Asked    int64         `json:"asked"` // bytes of all requests
	Nodes    int           `json:"nodes"`
	Unit     bool          `json:"unit"`
	Timed    bool          `json:"timed"`
	Span     time.Duration `json:"span"`
	// Ranged are the requests that were for a part of an object. They count like those
	// for the whole of it, as far as it was ever read.
	Ranged int `json:"ranged,omitempty"`
	// Most is the hit ratio of a cache with room for everything.
	Most Tally `json:"most"`

	Cells   []Cell        `json:"cells"`
	Levels  []LevelCell   `json:"levels,omitempty"`
	PerNode []NodeCell    `json:"perNode,omitempty"`
	Cluster []ClusterCell `json:"cluster,omitempty"`
	Curves  []Curve       `json:"curves,omitempty"`
	// Prefetch is for the caller to set: a Prefetcher sees what Decode leaves out.
	Prefetch []PrefetchCell `json:"prefetch,omitempty"`
	Sizes    []SizeShare    `json:"sizes,omitempty"` // CDF of the sizes of objects
}

// Run simulates what cfg says over a trace.
func Run(ctx context.Context, d *Decoded, cfg Config) (*Report, error) {
	r := newReport(d, most(d), d.Nodes)
	r.Span = d.Span()
	if err := errors.Join(cfg.GC.check(d.Unit, d.Timed), cfg.Curve.check(), cfg.Cluster.check()); err != nil {
		return nil, fmt.Errorf("simulating: %w", err)
	}
	var err error
	if r.Cells, err = cells(d, cfg); err != nil {
		return nil, err
	}
	r.Levels = make([]LevelCell, len(cfg.Levels))
	if r.PerNode, err = nodeCells(d, cfg); err != nil {
		return nil, err
	}
	if r.Cluster, err = clusterCells(d, cfg.Cluster); err != nil {
		return nil, err
	}
	j := newJobs(ctx, cfg)
	ahead := sync.OnceValue(func() *future { return newFuture(d) })
	for i := range r.Cells {
		j.do(func(ctx context.Context) error { return one(ctx, d, &r.Cells[i], cfg.GC, ahead) })
	}
	for i, l := range cfg.Levels {
		j.do(func(ctx context.Context) (err error) { r.Levels[i], err = levels(ctx, d, l); return err })
	}
	for i := range r.Cluster {
		j.do(func(ctx context.Context) error { return clusterOver(ctx, d, cfg.Cluster, &r.Cluster[i]) })
	}
	blank, err := cells(d, cfg)
	if err != nil {
		return nil, err
	}
	for i := range r.PerNode {
		j.do(func(ctx context.Context) error { return perNode(ctx, d, &r.PerNode[i], shared{blank, cfg.GC}) })
	}
	r.Curves = curves(j, d, cfg.Curve)
	if err := j.wait(); err != nil {
		return nil, fmt.Errorf("simulating: %w", err)
	}
	compare(r.Curves)
	return r, nil
}

// newReport returns a report of a trace and nothing simulated.
func newReport(d *Decoded, all Tally, nodes int) *Report {
	r := &Report{
		Requests: int(all.Requests), Objects: d.Objects(), Bytes: d.Bytes(), Asked: all.Bytes, Nodes: nodes,
		Unit: d.Unit, Timed: d.Timed, Ranged: d.Ranged, Most: all,
	}
	if !d.Unit {
		r.Sizes = sizeShares(d)
	}
	return r
}

// jobs runs simulations, some at a time.
type jobs struct {
	g    *errgroup.Group
	ctx  context.Context
	cfg  Config
	done atomic.Int64
	todo []func(context.Context) error
}

func newJobs(ctx context.Context, cfg Config) *jobs {
	j := &jobs{cfg: cfg}
	j.g, j.ctx = errgroup.WithContext(ctx)
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	j.g.SetLimit(cfg.Workers)
	return j
}

func (j *jobs) do(f func(context.Context) error) { j.todo = append(j.todo, f) }

func (j *jobs) wait() error {
	for _, f := range j.todo {
		j.g.Go(func() error {
			err := f(j.ctx)
			if err == nil && j.cfg.Progress != nil {
				j.cfg.Progress(int(j.done.Add(1)), len(j.todo))
			}
			return err
		})
	}
	return j.g.Wait()
}

// cells returns a cell for each policy and size, not simulated yet.
func cells(d *Decoded, cfg Config) ([]Cell, error) {
	var out []Cell
	for _, name := range cfg.Policies {
		if name != Belady {
			if _, err := policy.New[uint32](name); err != nil {
				return nil, fmt.Errorf("%w, or %s", err, Belady)
			}
		}
		for _, size := range cfg.Sizes {
			n, err := size.of(d)
			if err != nil {
				return nil, err
			}
			out = append(out, Cell{Policy: name, Size: size, Capacity: n})
		}
	}
	return out, nil
}

func nodeCells(d *Decoded, cfg Config) ([]NodeCell, error) {
	var out []NodeCell
	for _, size := range cfg.PerNode {
		n, err := size.of(d)
		if err != nil {
			return nil, err
		}
		name := policy.NameLRU
		if len(cfg.Policies) > 0 && cfg.Policies[0] != Belady {
			name = cfg.Policies[0]
		}
		out = append(out, NodeCell{Policy: name, Size: size, Capacity: n})
	}
	return out, nil
}

// one simulates a cell. ahead returns the future of d.
func one(ctx context.Context, d *Decoded, cell *Cell, gc GC, ahead func() *future) error {
	if cell.Policy == Belady {
		return belady(ctx, d, cell, ahead())
	}
	return single(ctx, d, cell, gc)
}

// most counts what a cache without a limit has.
func most(d *Decoded) (t Tally) {
	seen := make([]bool, len(d.Sizes))
	for _, a := range d.Accesses.All() {
		t.add(d.Sizes[a.ID], seen[a.ID])
		seen[a.ID] = true
	}
	return t
}
