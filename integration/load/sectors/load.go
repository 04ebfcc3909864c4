package sectors

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Load is a load and the knowledge of what it has done. Its methods may be
// called concurrently, but for Run and Adopt.
type Load struct {
	seed    uint64
	size    int64
	workers []*worker
	counts  [kinds]atomic.Int64
}

// New makes a load for a disk of size bytes that reads as zeros, with so many
// workers. Loads with equal seeds draw equal operations.
func New(size int64, workers int, seed uint64) (*Load, error) {
	sectors := size / Size
	each := sectors / int64(workers)
	if size%Size != 0 || each < mostWrite || sectors > 1<<32-1 {
		return nil, fmt.Errorf("loading a disk of %d bytes with %d workers: a region has at least %d sectors", size, workers, mostWrite)
	}
	l := &Load{seed: seed, size: size}
	for i := range int64(workers) {
		// Odd borders put workers into the same 4 KiB.
		first, end := i*each|1, (i+1)*each|1
		if i == 0 {
			first = 0
		}
		if i == int64(workers)-1 {
			end = sectors
		}
		l.workers = append(l.workers, newWorker(l, uint32(i), first, end-first))
	}
	return l, nil
}

// Run loads the disk until ctx ends. It returns an error if an operation fails
// before that. It may be called again, after Adopt if something may have been
// lost, or cut off.
func (l *Load) Run(ctx context.Context, d Disk) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range l.workers {
		g.Go(func() error { return w.run(ctx, d) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("loading a disk: %w", err)
	}
	return nil
}

// Busy returns how many operations of each kind are in progress.
func (l *Load) Busy() (n [4]int) {
	for _, w := range l.workers {
		if k := w.busy.Load(); k > 0 {
			n[k-1]++
		}
	}
	return n
}

// Done returns how many operations of each kind were acknowledged.
func (l *Load) Done() (n [4]int64) {
	for k := range n {
		n[k] = l.counts[k].Load()
	}
	return n
}

// floor is what a disk answers for in a region: the operation on each sector,
// and that any operation after the one numbered since may have been done, too.
type floor struct {
	since uint32
	seq   []uint32
}

// Floor is what a disk answers for.
type Floor []floor

// Acknowledged returns all that was acknowledged.
func (l *Load) Acknowledged() Floor { return l.floor(false) }

// Durable returns what was flushed.
func (l *Load) Durable() Floor { return l.floor(true) }

func (l *Load) floor(power bool) Floor {
	f := make(Floor, 0, len(l.workers))
	for _, w := range l.workers {
		f = append(f, w.floor(power))
	}
	return f
}

// Adopt goes on with what was found on a disk after a loss.
func (l *Load) Adopt(s *State) {
	for _, w := range l.workers {
		w.adopt(s.seq[w.first:][:w.n])
	}
}
