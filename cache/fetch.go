package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
)

// extent is the bytes [off, end) of a blob.
type extent struct{ off, end int64 }

// fillTries is how often a read that keeps being overtaken by evictions is
// tried again before it goes to the origin as a whole.
const fillTries = 3

// miss serves p, which is within the blob, from the cache as far as it goes
// and from the inner blob.
func (b *cached) miss(ctx context.Context, p []byte, off int64) error {
	o := b.open()
	if o == nil {
		b.c.count.misses.Add(1)
		b.c.count.bytesFetched.Add(int64(len(p)))
		return b.fetchInto(ctx, p, off)
	}
	defer o.release()
	gaps := o.fill(p, off)
	if len(gaps) == 0 {
		b.c.count.hits.Add(1)
		return nil
	}
	b.c.count.misses.Add(1)
	return b.fetch(ctx, o, p, off, mergeGaps(gaps, b.c.cfg.MergeGap))
}

// fill copies what the cache has into p and returns what is missing.
func (o *opened) fill(p []byte, off int64) []extent {
	all := extent{off, off + int64(len(p))}
	for range fillTries {
		gen := o.gen.Load()
		gaps := o.fillOnce(p, off, all)
		if o.gen.Load() == gen {
			return gaps
		}
	}
	return []extent{all}
}

func (o *opened) fillOnce(p []byte, off int64, all extent) (gaps []extent) {
	for x := all.off; x < all.end; {
		// Waiting tasks first: a task leaves only after held has its bytes, so
		// one that is found in neither place was in neither.
		next := all.end
		if t := o.waiting(x, all.end); t != nil {
			if t.off <= x {
				x = t.copyTo(p, off, x)
				continue
			}
			next = t.off
		}
		here, until := o.held.Extent(x, next)
		seg := extent{x, until}
		if !here || !o.readSegment(p, off, seg) {
			if k := len(gaps) - 1; k >= 0 && gaps[k].end == seg.off {
				gaps[k].end = seg.end
			} else {
				gaps = append(gaps, seg)
			}
		}
		x = until
	}
	return gaps
}

// readSegment is loadSegment, and counts as a use.
func (o *opened) readSegment(p []byte, off int64, seg extent) bool {
	if !o.loadSegment(p, off, seg) {
		return false
	}
	o.e.read(seg.off, seg.end-seg.off)
	return true
}

// loadSegment reads seg, which is within p, from the file. Bytes the disk can't
// return any more are dropped.
func (o *opened) loadSegment(p []byte, off int64, seg extent) bool {
	n := seg.end - seg.off
	_, err := o.file.ReadAt(p[seg.off-off:][:n], seg.off)
	if errors.Is(err, fs.ErrClosed) {
		return false // the cache is closing or lost the files
	} else if err != nil {
		o.e.c.count.readErrors.Add(1)
		o.e.c.failed(fmt.Errorf("reading cached blob %s: %w", o.e.desc.Digest, err))
		if errors.Is(err, io.EOF) {
			o.lose() // somebody cut the file
		} else {
			o.discard(seg.off, n)
		}
		return false
	}
	return true
}

// mergeGaps joins gaps with fewer than limit bytes between them.
func mergeGaps(gaps []extent, limit int64) []extent {
	out := gaps[:1]
	for _, g := range gaps[1:] {
		if last := &out[len(out)-1]; g.off-last.end < limit {
			last.end = g.end
		} else {
			out = append(out, g)
		}
	}
	return out
}

// fetch reads gaps from the inner blob, copies them into p and hands them over
// for storing. A gap that arrived whole is kept even if another one failed.
func (b *cached) fetch(ctx context.Context, o *opened, p []byte, off int64, gaps []extent) error {
	if len(gaps) == 1 {
		return b.fetchGap(ctx, o, p, off, gaps[0])
	}
	var group errgroup.Group
	group.SetLimit(b.c.cfg.FetchParallel)
	for _, g := range gaps {
		group.Go(func() error { return b.fetchGap(ctx, o, p, off, g) })
	}
	return group.Wait()
}

func (b *cached) fetchGap(ctx context.Context, o *opened, p []byte, off int64, g extent) error {
	t := &task{o: o, off: g.off, buf: make([]byte, g.end-g.off)}
	if err := b.fetchInto(ctx, t.buf, t.off); err != nil {
		return err
	}
	b.c.count.bytesFetched.Add(int64(len(t.buf)))
	t.copyTo(p, off, g.off)
	if !blob.Transient(ctx) {
		b.c.enqueue(ctx, t, blob.PriorityOf(ctx) == blob.Background)
	}
	return nil
}

// fetchInto fills p from the inner blob.
func (b *cached) fetchInto(ctx context.Context, p []byte, off int64) error {
	n, err := b.inner.ReadAt(ctx, p, off)
	if n == len(p) {
		return nil // io.EOF may come with the last byte
	}
	if err == nil || err == io.EOF { //nolint:errorlint // one that wraps it says more
		err = fmt.Errorf("reading blob %s at %d: got %d of %d bytes: %w",
			b.desc.Digest, off, n, len(p), io.ErrUnexpectedEOF)
	}
	return err
}
