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
	x   *cache.Content
	src Source
}

// Want has extents of the content's blob fetched when their turn comes: what is
// wanted is fetched one after the other. The caller may release x. It fails with
// ErrBusy when too much waits already.
func (g *Group) Want(x *cache.Content, src Source, w Wanted) error {
	job := want{w, x.Clone(), src}
	select {
	case <-g.stopped:
		job.x.Release()
		return ErrStopped
	default:
	}
	select {
	case g.wants <- job:
		return nil
	default:
		job.x.Release()
		return ErrBusy
	}
}

// background fetches what is wanted until ctx ends.
func (g *Group) background(ctx context.Context) {
	for {
		select {
		case w := <-g.wants:
			err := g.serve(ctx, w)
			w.x.Release()
			if w.Done != nil {
				w.Done(err)
			}
		case <-ctx.Done():
			for {
				select {
				case w := <-g.wants:
					w.x.Release()
					if w.Done != nil {
						w.Done(ErrStopped)
					}
				default:
					return
				}
			}
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
		case <-time.After(100 * time.Millisecond):
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
