package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// ErrWhole says that something cannot be simulated while a trace is read.
var ErrWhole = errors.New("only policies at sizes in bytes or objects can be simulated while the trace is read")

// Stream simulates policies at fixed sizes while it reads the trace: it takes memory
// by the distinct objects of the trace, about 50 bytes each, and by what the caches
// hold, which are all simulated at the same time, but not by the length of the trace.
// Where an object turns out to be larger than was known when it came, it grows then;
// otherwise the cells are those of Run. That of Belady has an Error.
func Stream(ctx context.Context, r trace.Reader, s Scope, cfg Config) (*Report, error) {
	sizes := []Size{cfg.Cluster.L1, cfg.Cluster.L2}
	if len(cfg.Policies) > 0 {
		sizes = append(sizes, cfg.Sizes...)
	}
	for _, size := range sizes {
		if size.Share > 0 {
			return nil, fmt.Errorf("simulating %s: %w", size, ErrWhole)
		}
	}
	if err := cfg.Cluster.check(); err != nil {
		return nil, fmt.Errorf("simulating: %w", err)
	}
	if len(cfg.Levels)+len(cfg.PerNode)+len(cfg.Curve.Shards)+cfg.Curve.Sample > 0 || cfg.Curve.Exact {
		return nil, ErrWhole
	}
	dec := newDecoder(s)
	dec.stream = true
	st := &stream{d: dec.d, cfg: cfg, workers: cfg.Workers}
	if st.workers <= 0 {
		st.workers = runtime.GOMAXPROCS(0)
	}
	if err := st.begin(); err != nil {
		return nil, err
	}
	for more := true; more; {
		var err error
		if more, err = dec.fill(ctx, r, blockLen); err != nil {
			return nil, err
		}
		if err = st.block(ctx, dec.grown); err != nil {
			return nil, err
		}
		dec.d.Accesses, dec.grown = Accesses{}, dec.grown[:0]
	}
	if dec.all.Requests == 0 {
		return nil, errNothing
	}
	return st.report(dec)
}

// streamed is what is simulated while a trace is read.
type streamed interface {
	// fit takes in that there are more objects, and some have grown.
	fit(grown []growth)
	access(a Access)
	end()
}

// stream is the cells of a trace that is being read.
type stream struct {
	d       *Decoded
	cfg     Config
	workers int
	cells   []Cell
	cluster []ClusterCell
	running []streamed
	first   int64
	last    int64
	began   bool
}

func (st *stream) begin() (err error) {
	if st.cells, err = cells(st.d, st.cfg); err != nil {
		return err
	}
	for i := range st.cells {
		if st.cells[i].Policy == Belady {
			st.cells[i].Error = ErrWhole.Error()
			continue
		}
		r, err := begin(st.d, &st.cells[i], st.cfg.GC)
		if err != nil {
			return err
		}
		st.running = append(st.running, r)
	}
	if st.cluster, err = clusterCells(st.d, st.cfg.Cluster); err != nil {
		return err
	}
	for i := range st.cluster {
		r, err := beginCluster(st.d, st.cfg.Cluster, &st.cluster[i])
		if err != nil {
			return err
		}
		st.running = append(st.running, r)
	}
	return nil
}

// block runs all cells over what was read.
func (st *stream) block(ctx context.Context, grown []growth) error {
	if st.d.Accesses.Len() == 0 {
		return nil
	}
	if err := st.cfg.GC.check(st.d.Unit, st.d.Timed); err != nil {
		return err
	}
	for _, a := range st.d.Accesses.All() {
		if !st.began {
			st.first, st.began = a.Time, true
		}
		st.last = a.Time
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(st.workers)
	for _, r := range st.running {
		g.Go(func() error {
			r.fit(grown)
			for _, a := range st.d.Accesses.during(ctx) {
				r.access(a)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// fit is of streamed.
func (r *running) fit(grown []growth) {
	if more := len(r.d.Sizes) - len(r.s.have); more > 0 {
		r.s.have = append(r.s.have, make([]bool, more)...)
	}
	if r.gc != nil {
		r.gc.fit()
	}
	for _, g := range grown {
		r.s.grow(g.id, g.from, g.to)
	}
}

func (st *stream) report(dec *decoder) (*Report, error) {
	for _, r := range st.running {
		r.end()
	}
	out := newReport(st.d, dec.all, len(dec.nodes))
	out.Cells, out.Cluster = st.cells, st.cluster
	out.Span = time.Duration(st.last - st.first)
	return out, nil
}

// growth is an object that is larger than was known.
type growth struct {
	id       uint32
	from, to int64
}

// fill reads up to n accesses and reports whether there may be more.
func (dec *decoder) fill(ctx context.Context, r trace.Reader, n int) (more bool, err error) {
	for read := 0; dec.d.Accesses.Len() < n; read++ {
		if read%4096 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err == nil {
			err = dec.add(x)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
