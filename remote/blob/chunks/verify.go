package chunks

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

// Verify returns b with every read of the bytes that a chunk table covers
// checked against it. ref says which table; without one, b is returned. table
// is where its bytes are read from, ref.Size of them: a section of b as seen
// through whatever caches, joins and repeats reads above Verify, or a blob of
// its own. o, which may be nil, is told about what is wrong.
//
// Reads are widened to whole leaves. What is wrong is reported, its host
// rejected (blob.Rejecter) and read again; when all hosts served it wrong, the
// read ends with *Error. A read returns the number of bytes that were verified,
// always whole leaves of its start, and the rest of p is zeros: nothing
// unverified is returned, not even beside an error.
//
// Reads behind the covered bytes pass as they are: there lies the table itself,
// which its reader verifies, and the zeros at the end of the archive, which
// nobody reads. They do not need the table, so that it can be read through
// Verify.
func Verify(b blob.Blob, ref Ref, table blob.ReaderAt, o Observer) blob.Blob {
	if ref.IsZero() {
		return b
	}
	v := &verified{Blob: b, ref: ref, covered: ref.Covered(b.Size()), table: table, o: o}
	size := b.Size()
	if ref.Detached() {
		size = table.Size()
	}
	err := ref.ValidateIn(size)
	if err == nil && table.Size() != ref.Size {
		err = fmt.Errorf("chunk table has %d bytes, not %d", table.Size(), ref.Size)
	}
	if err != nil {
		v.invalid = blob.Permanent(fmt.Errorf("blob %s: %w", b.Descriptor().Digest, err))
	}
	return v
}

type verified struct {
	blob.Blob
	ref     Ref
	covered int64
	table   blob.ReaderAt
	o       Observer
	invalid error // of ref: ends every read

	index atomic.Pointer[index] // nil until a read needed it
	pages pages
}

// Present implements blob.Presence.
func (v *verified) Present(off, n int64) bool { return blob.Present(v.Blob, off, n) }

// Discard implements blob.Discarder.
func (v *verified) Discard(off, n int64) { blob.Discard(v.Blob, off, n) }

// Reject implements blob.Rejecter.
func (v *verified) Reject(origin string) { blob.Reject(v.Blob, origin) }

// ReadAt implements blob.ReaderAt.
func (v *verified) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	p, end := blob.Clip(v.Blob, p, off)
	if len(p) == 0 {
		return 0, end
	}
	if v.invalid != nil {
		return 0, v.invalid
	}
	n, err := v.readAt(ctx, p, off)
	if n == len(p) {
		return n, end
	}
	clear(p[n:])
	return n, err
}

// readAt fills p, which lies within the blob.
func (v *verified) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	table, inside := v.table, len(p)
	if over := off + int64(len(p)) - v.covered; over > 0 {
		if over >= int64(len(p)) {
			return v.Blob.ReadAt(ctx, p, off)
		}
		inside -= int(over)
		if !v.ref.Detached() {
			// Somebody above may have joined reads of the table to this
			// one, which must not wait for them, then.
			table = blob.Section(v.Blob, v.ref.Offset, v.ref.Size)
		}
	}
	n, err := v.read(ctx, p[:inside], off, table)
	if n < inside || inside == len(p) {
		return n, err
	}
	rest, err := v.Blob.ReadAt(ctx, p[n:], off+int64(n))
	return n + rest, err
}

// read fills p, which lies within the covered bytes.
func (v *verified) read(ctx context.Context, p []byte, off int64, table blob.ReaderAt) (int, error) {
	if off == 0 && v.index.Load() == nil && len(p) <= maxFirst {
		return v.readFirst(ctx, p, table)
	}
	ix, err := v.load(ctx, table)
	if err != nil {
		return 0, err
	}
	return v.readRange(ctx, p, off, ix, table)
}

// readRange is read with the index there.
func (v *verified) readRange(ctx context.Context, p []byte, off int64, ix *index, table blob.ReaderAt) (int, error) {
	var room [24]*page
	s := span{ix: ix, first: ix.find(off)}
	last := ix.find(off + int64(len(p)) - 1)
	var held bool
	if s.pages, held = v.pages.lookup(room[:0], s.first, last); !held {
		return v.readBoth(ctx, p, off, s, table)
	}
	from, to := s.widen(off, off+int64(len(p)))
	if from == off && to == off+int64(len(p)) {
		return v.readLeaves(ctx, p, off, s)
	}
	buf := scratch.Borrow(int(to - from))
	defer scratch.Return(buf)
	n, err := v.readLeaves(ctx, *buf, from, s)
	if from+int64(n) <= off {
		return 0, err
	}
	return copy(p, (*buf)[off-from:n]), err
}

const (
	// maxFirst is the length in bytes of reads of the start of a blob that
	// do not wait for the index.
	maxFirst = 16 << 10
	// spare is how many bytes more such a read takes in, for the rest of the
	// last leaf: with blocks of 4 KiB, that is mostly enough.
	spare = 2 << 10
)

// readFirst is read for the start of a blob whose index was not read yet: both
// are fetched at the same time, which saves whoever opens a layer a round trip.
func (v *verified) readFirst(ctx context.Context, p []byte, table blob.ReaderAt) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	buf := scratch.Borrow(int(min(int64(len(p)+spare), v.covered)))
	defer scratch.Return(buf)
	_, a := v.begin(ctx, *buf, 0)
	ix, err := v.load(ctx, table)
	if err != nil {
		cancel()
	}
	<-a.done
	if err != nil {
		return 0, err
	}
	if a.n < len(*buf) {
		return 0, within(a.n, len(*buf), a.err)
	}
	s := span{ix: ix}
	var held bool
	s.pages, held = v.pages.lookup(nil, 0, ix.find(int64(len(p))-1))
	if held {
		if _, to := s.widen(0, int64(len(p))); to <= int64(len(*buf)) {
			bad, n := s.check((*buf)[:to], 0)
			if done, err := v.settle(ctx, *buf, 0, bad, a.origins); err != nil {
				return copy(p, (*buf)[:done]), err
			}
			return copy(p, (*buf)[:n]), nil
		}
	}
	return v.readRange(ctx, p, 0, ix, table)
}

// readLeaves fills p with the whole leaves that lie there and verifies them.
// Of a read that breaks off, it returns what is whole.
func (v *verified) readLeaves(ctx context.Context, p []byte, off int64, s span) (int, error) {
	if len(p) >= followFrom {
		_, a := v.begin(ctx, p, off)
		a.follow(s)
		return v.finish(ctx, a, s)
	}
	octx, origins := blob.WithOrigins(ctx)
	n, err := v.Blob.ReadAt(octx, p, off)
	bad, whole := s.check(p[:n], off)
	if done, err := v.settle(ctx, p, off, bad, origins); err != nil {
		return done, err
	}
	return whole, within(n, len(p), err)
}

// within returns the error of a read within the blob that delivered n bytes of
// want: the end of the blob is none that may be.
func within(n, want int, err error) error {
	switch {
	case n == want:
		return nil
	case err == nil || err == io.EOF: //nolint:errorlint // one that wraps it says more
		return io.ErrUnexpectedEOF
	}
	return err
}

// readBoth is read for when pages are missing: they and the bytes are fetched
// at the same time, and the rest of the leaves at both ends once it is known
// how far they reach.
func (v *verified) readBoth(ctx context.Context, p []byte, off int64, s span, table blob.ReaderAt) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	octx, a := v.begin(ctx, p, off)
	if err := v.fetchPages(ctx, s, table); err != nil {
		cancel()
		<-a.done
		return 0, err
	}
	from, to := s.widen(off, off+int64(len(p)))
	if from == off && to == off+int64(len(p)) {
		a.follow(s)
		return v.finish(ctx, a, s)
	}
	<-a.done
	switch {
	case a.n == len(p):
		return v.readEdges(octx, p, off, s, a.origins)
	case from == off:
		return v.finish(ctx, a, s)
	}
	return 0, within(a.n, len(p), a.err)
}

// readEdges reads what is missing of the leaves at the ends of p, which was
// read, and verifies all of them. ctx is the context of origins.
func (v *verified) readEdges(ctx context.Context, p []byte, off int64, s span, origins *blob.Origins) (int, error) {
	end := off + int64(len(p))
	from, to := s.widen(off, end)
	buf := scratch.Borrow(int(to - from))
	defer scratch.Return(buf)
	copy((*buf)[off-from:], p)
	g, gctx := errgroup.WithContext(ctx)
	edge := func(from, to, at int64) {
		if from < to {
			g.Go(func() error { return blob.ReadFull(gctx, v.Blob, (*buf)[at:at+to-from], from) })
		}
	}
	edge(from, off, 0)
	edge(end, to, end-from)
	if err := g.Wait(); err != nil {
		return 0, err
	}
	bad, n := s.check(*buf, from)
	done, err := v.settle(ctx, *buf, from, bad, origins)
	if err != nil {
		n = done
	}
	if from+int64(n) <= off {
		return 0, err
	}
	return copy(p, (*buf)[off-from:n]), err
}
