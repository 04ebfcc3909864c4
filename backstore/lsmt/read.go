package lsmt

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
)

// parallelReads is how many layers one ReadAt asks at once.
const parallelReads = 16

// run is a stretch of a read whose bytes lie together in one layer.
type run struct {
	layer int
	off   int64 // in the layer's stream, in bytes
	p     []byte
}

// cursor cuts a read into runs.
type cursor struct {
	index *index
	i     int    // entry that ends after pos
	pos   int64  // on the disk, in bytes
	p     []byte // what is left to read, from pos on
}

func (x *index) cursor(p []byte, off int64) cursor {
	return cursor{index: x, i: x.find(uint64(off) / SectorSize), pos: off, p: p}
}

// next returns the next run and fills what lies before it with zeros. It
// returns false at the end.
func (c *cursor) next() (run, bool) {
	for len(c.p) > 0 {
		if c.i >= c.index.len() {
			clear(c.take(int64(len(c.p))))
			break
		}
		e := c.index.at(c.i)
		if start := int64(e.offset()) * SectorSize; c.pos < start {
			clear(c.take(start - c.pos))
			continue
		}
		if e.zeroed() {
			clear(c.take(int64(e.end())*SectorSize - c.pos))
			c.i++
			continue
		}
		r := run{layer: e.layer(), off: c.pos + (int64(e.mapped())-int64(e.offset()))*SectorSize}
		r.p = c.take(c.contiguous(e)*SectorSize - c.pos)
		return r, true
	}
	return run{}, false
}

// take cuts n bytes, or what there is, off the front of the read.
func (c *cursor) take(n int64) []byte {
	n = min(n, int64(len(c.p)))
	p := c.p[:n]
	c.p, c.pos = c.p[n:], c.pos+n
	return p
}

// contiguous advances past e, which is at the cursor, and the entries that
// continue it both on the disk and in the layer, as far as the read goes. It
// returns the sector of the disk where they end.
func (c *cursor) contiguous(e entry) int64 {
	stop := c.pos + int64(len(c.p))
	for c.i++; c.i < c.index.len() && int64(e.end())*SectorSize < stop; c.i++ {
		next := c.index.at(c.i)
		if next.offset() != e.end() || next.to != e.to+e.length() {
			break
		}
		e = next
	}
	return int64(e.end())
}

// ReadAt implements device.Device; unlike kernels it may ask for any offset
// and length.
func (m *Image) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading image at negative offset %d", off)
	}
	var end error
	if int64(len(p)) > m.size-off {
		p, end = p[:max(m.size-off, 0)], io.EOF
	}
	if err := m.read(ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), end
}

// read fills p. Runs that are all at hand are read one after the other; as
// soon as one is not, it is fetched beside the others.
func (m *Image) read(ctx context.Context, p []byte, off int64) error {
	c := m.index.cursor(p, off)
	for {
		r, ok := c.next()
		if !ok {
			return nil
		}
		if len(c.p) > 0 && !blob.Present(m.files[r.layer], r.off, int64(len(r.p))) {
			return m.readParallel(ctx, r, &c)
		}
		if err := m.readRun(ctx, r); err != nil {
			return err
		}
	}
}

// readParallel reads first and all later runs, those that are not present in
// parallel.
func (m *Image) readParallel(ctx context.Context, first run, c *cursor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for r, ok := first, true; ok; r, ok = c.next() {
		if blob.Present(m.files[r.layer], r.off, int64(len(r.p))) {
			if err := m.readRun(ctx, r); err != nil {
				g.Go(func() error { return err })
				break
			}
			continue
		}
		g.Go(func() error { return m.readRun(ctx, r) })
	}
	return g.Wait()
}

func (m *Image) readRun(ctx context.Context, r run) error {
	f := m.files[r.layer]
	if err := blob.ReadFull(ctx, f, r.p, r.off); err != nil {
		return fmt.Errorf("reading layer %d (%s): %w", r.layer, blob.Name(f), err)
	}
	return nil
}

// Local reports whether everything that can be read is held locally, so that
// no read needs the network. It is cheap while something is missing: it looks
// first where it found the last gap.
func (m *Image) Local() bool {
	gap := int(m.absent.Load())
	for _, part := range [2][2]int{{gap, m.index.len()}, {0, gap}} {
		if i := m.firstAbsent(part[0], part[1]); i < part[1] {
			m.absent.Store(int64(i))
			return false
		}
	}
	return true
}

// firstAbsent returns the first of the segments from i up to end whose bytes
// are not all present, or end.
func (m *Image) firstAbsent(i, end int) int {
	for i < end {
		e := m.index.at(i)
		if e.zeroed() {
			i++
			continue
		}
		// One question for segments that follow each other in the layer.
		next, n := i+1, e.length()
		for next < end && m.index.at(next).to == e.to+n {
			n += m.index.at(next).length()
			next++
		}
		if !blob.Present(m.files[e.layer()], int64(e.mapped())*SectorSize, int64(n)*SectorSize) {
			return i
		}
		i = next
	}
	return end
}

// Present implements blob.Presence. What no layer holds reads as zeros and is
// present; past the end nothing is.
func (m *Image) Present(off, n int64) bool {
	if off < 0 || n < 0 || n > m.size-off {
		return false
	}
	for off, end := off/SectorSize, (off+n+SectorSize-1)/SectorSize; off < end; {
		i := m.index.find(uint64(off))
		if i >= m.index.len() {
			return true
		}
		e := m.index.at(i)
		from, to := max(off, int64(e.offset())), min(end, int64(e.end()))
		if from >= to {
			return true
		}
		at := int64(e.mapped()) + from - int64(e.offset())
		if !e.zeroed() && !blob.Present(m.files[e.layer()], at*SectorSize, (to-from)*SectorSize) {
			return false
		}
		off = to
	}
	return true
}
