package files

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	gosync "sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Load is a load and the knowledge of what it has done. Its methods may be
// called concurrently, but for Run and Adopt.
type Load struct {
	seed    uint64
	workers []*worker
}

// worker loads one folder.
type worker struct {
	load *Load
	id   uint32
	rand *rand.Rand
	busy atomic.Bool

	mu      gosync.Mutex // protects what follows
	base    folder       // after the operations before log
	next    uint32       // number of the first in log; none is 0
	log     []op
	acked   int // so many of log were acknowledged
	durable int // so many of log are durable
}

// New makes a load with so many workers.
func New(workers int, seed uint64) *Load {
	l := &Load{seed: seed}
	for i := range uint32(workers) {
		l.workers = append(l.workers, &worker{load: l, id: i, next: 1, rand: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	return l
}

func (w *worker) dir(root string) string { return filepath.Join(root, fmt.Sprintf("worker-%d", w.id)) }

// Run loads a file system, in folders of root, until ctx ends. It returns an
// error if an operation fails before that. It may be called again, after Adopt if
// something may have been lost, or cut off.
func (l *Load) Run(ctx context.Context, root string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range l.workers {
		if err := os.MkdirAll(w.dir(root), 0o755); err != nil {
			return fmt.Errorf("loading a file system: %w", err)
		}
		g.Go(func() error { return w.run(ctx, w.dir(root)) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("loading a file system: %w", err)
	}
	return nil
}

func (w *worker) run(ctx context.Context, dir string) error {
	for ctx.Err() == nil {
		o, seq := w.begin()
		w.busy.Store(true)
		err := o.do(dir, w.load.seed, w.id, seq)
		w.busy.Store(false)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w.acknowledge(o)
	}
	return nil
}

func (w *worker) begin() (op, uint32) {
	o := choose(w.rand)
	w.mu.Lock()
	defer w.mu.Unlock()
	// A floor that is taken later needs nothing older than this.
	if w.durable > 4096 {
		for i, o := range w.log[:w.durable] {
			w.base = w.base.apply(o, w.next+uint32(i))
		}
		w.next += uint32(w.durable)
		w.log = append([]op(nil), w.log[w.durable:]...)
		w.acked -= w.durable
		w.durable = 0
	}
	w.log = append(w.log, o)
	return o, w.next + uint32(len(w.log)) - 1
}

func (w *worker) acknowledge(o op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = len(w.log)
	if o.kind == sync {
		w.durable = w.acked
	}
}

// Done returns how many operations were acknowledged.
func (l *Load) Done() (n int64) {
	for _, w := range l.workers {
		w.mu.Lock()
		n += int64(w.next) - 1 + int64(w.acked)
		w.mu.Unlock()
	}
	return n
}

// Busy returns how many operations are in progress.
func (l *Load) Busy() (n int) {
	for _, w := range l.workers {
		if w.busy.Load() {
			n++
		}
	}
	return n
}
