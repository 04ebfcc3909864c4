package fill

import (
	"context"
	"errors"
	"time"

	"github.com/reprise-containers/reprise/cache"
)

// ErrBusy says that too much is wanted in the background already.
var ErrBusy = errors.New("too much is to be fetched in the background")

const (
	maxWants = 256
	// stepSize is how much is fetched in the background between two looks at
	// whether somebody waits for something, in bytes.
	stepSize = 1 << 20
	// idleLook is how often it is looked whether somebody still does.
	idleLook = 100 * time.Millisecond
)

// Wanted is what is to be fetched in the background.
type Wanted struct {
	Extents []Extent // in this order
	// Budget is asked before n bytes are fetched, and waits until they may be.
	// Optional.
	Budget func(ctx context.Context, n int) error
	// Idle has it wait until nothing else is fetched.
	Idle bool
	// Done is told how it ended. Optional; it must not block.
	Done func(error)
}

type want struct {
	Wanted
	x    *cache.Content
	src  Source
	idle *filling // to be completed, nil for what somebody wants
}

// Want has extents of the content's blob fetched when their turn comes: what is
// wanted is fetched one after the other. The caller may release x. It fails with
// ErrBusy when too much waits already.
func (g *Group) Want(x *cache.Content, src Source, w Wanted) error {
	// What waits until the link is idle must not be waited for by the rest.
	queue := g.wants
	if w.Idle {
		queue = g.idle
	}
	job := want{Wanted: w, x: x.Clone(), src: src}
	err := g.enqueue(queue, job)
	if err != nil {
		job.x.Release()
	}
	return err
}

// enqueue puts job into a queue if there is room and the group runs.
func (g *Group) enqueue(queue chan<- want, job want) error {
	select {
	case <-g.stopped:
		return ErrStopped
	default:
	}
	select {
	case queue <- job:
		return nil
	default:
		return ErrBusy
	}
}

// complete has the rest of r's content fetched when nobody waits for anything, with
// r's source, unless that is about to happen.
func (g *Group) complete(r *Reader) {
	if r.x.Complete() {
		return
	}
	f := r.f
	f.mu.Lock()
	no := f.completing || f.wrong || time.Since(f.refused) < refusedFor
	f.completing = !no || f.completing
	f.mu.Unlock()
	if no {
		return
	}
	job := want{
		Wanted: Wanted{Extents: []Extent{{0, f.size}}, Idle: true},
		x:      r.x.Clone(), src: r.src, idle: g.open(r.x),
	}
	if err := g.enqueue(g.idle, job); err != nil {
		g.drop(job, err) // another reader may find room
	}
}

// drop ends a want.
func (g *Group) drop(w want, err error) {
	w.x.Release()
	if w.idle != nil {
		w.idle.mu.Lock()
		w.idle.completing = false
		w.idle.mu.Unlock()
		g.close(w.idle)
	}
	if w.Done != nil {
		w.Done(err)
	}
}

// background fetches what is wanted in a queue until ctx ends.
func (g *Group) background(ctx context.Context, queue chan want) {
	for ctx.Err() == nil {
		select {
		case w := <-queue:
			g.drop(w, g.serve(ctx, w))
		case <-ctx.Done():
		}
	}
	for {
		select {
		case w := <-queue:
			g.drop(w, ErrStopped)
		default:
			return
		}
	}
}

func (g *Group) serve(ctx context.Context, w want) error {
	size := w.x.Descriptor().Size
	for _, e := range w.Extents {
		for off, end := max(0, e.Off), min(e.End, size); off < end; {
			held, until := w.x.Extent(off, end)
			if held {
				off = until
				continue
			}
			to := min(until, off+stepSize)
			if err := g.permit(ctx, w, int(to-off)); err != nil {
				return err
			}
			if err := g.fetchQuietly(ctx, w, off, to); err != nil {
				return err
			}
			off = to
		}
	}
	return nil
}

// permit waits until n bytes may be fetched.
func (g *Group) permit(ctx context.Context, w want, n int) error {
	for w.Idle && g.count.fetching.Load() > 0 {
		select {
		case <-time.After(idleLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if w.Budget != nil {
		return w.Budget(ctx, n)
	}
	return ctx.Err()
}

// fetchQuietly fetches what is missing between off and end.
func (g *Group) fetchQuietly(ctx context.Context, w want, off, end int64) error {
	r := g.Reader(ctx, w.x, w.src, off, end-off)
	r.whole, r.quiet = false, true
	defer r.Close()
	for r.pos < r.end && r.straight == nil {
		n, err := r.ready(r.end - r.pos)
		if err != nil {
			return err
		}
		r.pos += n
	}
	if r.straight != nil {
		return cache.ErrNotStored
	}
	return nil
}
