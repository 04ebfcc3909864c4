package fill

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/reprise-containers/reprise/cache"
)

// Follower reads what a blob has in the cache and what is on its way there, for
// somebody in whose name nothing is fetched: another replica. It is for one goroutine.
type Follower struct {
	g      *Group
	f      *filling
	x      *cache.Content
	ctx    context.Context //nolint:containedctx // of the request that it answers
	coming func(off int64) <-chan struct{}

	pos, end int64
}

// Follow returns a reader of the bytes [off, end) of the content's blob, which the
// caller goes on to hold until it has closed it. Where they are not in the cache it
// asks coming, which returns a channel that is closed when the byte at off is no longer
// on its way, nil if it is not on its way now. Where nothing comes the reader ends, with
// io.EOF.
func (g *Group) Follow(ctx context.Context, x *cache.Content, e Extent, coming func(off int64) <-chan struct{}) *Follower {
	return &Follower{g: g, f: g.open(x), x: x, ctx: ctx, coming: coming, pos: e.Off, end: min(e.End, x.Descriptor().Size)}
}

// Close ends the reader.
func (r *Follower) Close() error {
	r.g.close(r.f)
	return nil
}

// Read implements io.Reader.
func (r *Follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.pos < r.end {
		// Before the look: what changes after it is told through this channel.
		changed := r.f.news()
		held, until := r.x.Extent(r.pos, min(r.end, r.pos+int64(len(p))))
		if held {
			return r.read(p[:until-r.pos])
		}
		gone := r.coming(r.pos)
		if gone == nil || !r.f.brings(r.pos) {
			// It may have been stored, and its fetch ended, in between.
			if held, _ := r.x.Extent(r.pos, r.end); held {
				continue
			}
			break
		}
		if err := r.wait(changed, gone); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// read reads p, all of which is in the cache.
func (r *Follower) read(p []byte) (int, error) {
	n, err := r.x.ReadNew(p, r.pos)
	r.pos += int64(n)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, cache.ErrNotHeld) { // the disk did not return it
		return 0, io.EOF
	}
	return 0, err
}

// wait waits for news of the content, for the fetch to end, or for the caller to go.
func (r *Follower) wait(changed, gone <-chan struct{}) error {
	select {
	case <-changed:
	case <-gone:
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-r.g.stopped:
		return ErrStopped
	}
	return nil
}

// brings reports whether somebody here fetches the byte at off into the cache. Who gets it
// past the cache brings it to nobody else.
func (f *filling) brings(off int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.fetches, func(t *fetch) bool { return t.pos <= off && off < t.End })
}

// news returns what is closed when something changes.
func (f *filling) news() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}
