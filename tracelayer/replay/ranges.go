package replay

import (
	"context"
	"crypto/sha256"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

const (
	// lookAhead is among how many items neighbours are looked for.
	lookAhead = 64
	// maxRange is the longest range that is asked for: a read that somebody
	// waits for joins it (blob.Coalesce).
	maxRange = 256 << 10
)

// batch is items of one layer that are fetched together: [off, end) of it.
type batch struct {
	layer    int
	off, end int64
	items    []item
}

// ranges fetches items by ranges of their own blobs.
func (r *run) ranges(ctx context.Context, items []item) {
	defer r.Line.join()()
	flight := &flight{changed: make(chan struct{})}
	g := gate{line: r.Line, urgent: func() bool { return false }, grant: r.Line.share}
	var group errgroup.Group
	group.SetLimit(r.Parallel)
	taken := make([]bool, len(items))
	for k := range items {
		if taken[k] {
			continue
		}
		if r.present(items[k].Extent) {
			r.skip(SkippedPresent, items[k].Size)
			continue
		}
		b := r.gather(items, taken, k)
		n := int(b.end - b.off)
		if g.pass(ctx) != nil || flight.enter(ctx, n, r.Line.share) != nil {
			break
		}
		g.passed(n)
		group.Go(func() error {
			r.fetchBatch(ctx, b)
			flight.leave(n)
			return nil
		})
	}
	_ = group.Wait() // nothing returns an error
}

// gather returns item k with those of the next ones that cost less with it than
// on their own, and takes them.
func (r *run) gather(items []item, taken []bool, k int) batch {
	share := int64(r.Line.share())
	b := batch{items[k].Layer, items[k].Off, items[k].end(), []item{items[k]}}
	most := min(share, maxRange)
	together := min(int64(r.Parallel), max(share/max(b.end-b.off, 4<<10), 1))
	gap := r.Line.requestCost(int(together))
	taken[k] = true
	for grown := true; grown; {
		grown = false
		for j := k + 1; j < min(k+lookAhead, len(items)); j++ {
			i := items[j]
			if taken[j] || i.Layer != b.layer || i.Off-b.end > gap || b.off-i.end() > gap {
				continue
			}
			if off, end := min(b.off, i.Off), max(b.end, i.end()); end-off <= most && !r.present(i.Extent) {
				b.off, b.end, b.items = off, end, append(b.items, i)
				taken[j], grown = true, true
			}
		}
	}
	return b
}

// fetchBatch reads a batch, in pieces that fit what may be in flight.
func (r *run) fetchBatch(ctx context.Context, b batch) {
	t := r.Targets[b.layer]
	n := b.end - b.off
	if r.room.Acquire(ctx, n) != nil {
		return
	}
	defer r.room.Release(n)
	buf := scratch.Borrow(int(n))
	defer scratch.Return(buf)
	for done := int64(0); done < n; {
		piece := min(n-done, max(min(int64(r.Line.share()), maxRange), minWindow))
		r.count.ranges.Add(1)
		if err := blob.ReadFull(ctx, t.Blob, (*buf)[done:done+piece], b.off+done); err != nil {
			if ctx.Err() == nil {
				for _, i := range b.items {
					r.skip(SkippedFailed, i.Size)
				}
			}
			return
		}
		r.count.received.Add(piece)
		r.Line.arrived(int(piece))
		done += piece
	}
	for _, i := range b.items {
		p := (*buf)[i.Off-b.off:][:i.Size]
		// What has a table was compared with that. A plan made of a trace
		// on this node has no sums.
		if t.Stage == nil && i.Sum != [sha256.Size]byte{} && sha256.Sum256(p) != i.Sum {
			blob.Discard(t.Blob, i.Off, i.Size)
			r.skip(SkippedCorrupt, i.Size)
			continue
		}
		r.arrived(i)
	}
}

// flight is how many bytes are under way.
type flight struct {
	mu      sync.Mutex
	bytes   int
	changed chan struct{} // closed when it gets less
}

// enter waits until n bytes more are within limit, or nothing is under way.
func (f *flight) enter(ctx context.Context, n int, limit func() int) error {
	for {
		f.mu.Lock()
		if f.bytes == 0 || f.bytes+n <= limit() {
			f.bytes += n
			f.mu.Unlock()
			return nil
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *flight) leave(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes -= n
	close(f.changed)
	f.changed = make(chan struct{})
}
