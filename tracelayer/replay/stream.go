package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

const (
	// workers is how many extents are verified at a time.
	workers = 4
	// leastPiece and mostPiece bound how many bytes of the data are read at
	// most between two looks at who goes first: an eighth of the window, as
	// what is read makes room for as much to be sent.
	leastPiece, mostPiece = 8 << 10, 64 << 10
	// scrapSize is how many bytes that nobody needs are read at a time.
	scrapSize = 64 << 10
	// maxWrong is how many extents with a wrong sum make the data useless.
	maxWrong = 8
	// tries is how often the data are asked for without an extent arriving.
	tries = 5
	// firstPause is how long the first pause between two of them is, on
	// average.
	firstPause = 200 * time.Millisecond
)

// errUseless is that the data are not what the plan says.
var errUseless = errors.New("data of the trace layer are wrong")

// errFar is that what is needed next lies so far ahead that a new request is
// cheaper.
var errFar = errors.New("what is needed lies far ahead")

// stream fetches items by the data. What that does not help with is left.
func (r *run) stream(ctx context.Context, items []item) {
	leave := r.Line.join()
	if r.Local {
		leave()
		leave = func() {}
	}
	defer leave()
	for failures := 0; len(items) > 0; {
		for len(items) > 0 && r.present(items[0].Extent) {
			r.skip(SkippedPresent, items[0].Size)
			items = items[1:]
		}
		if len(items) == 0 || ctx.Err() != nil {
			return
		}
		done, err := r.open(ctx, items)
		items = items[done:]
		if done > 0 {
			failures = 0
		}
		if err == nil || errors.Is(err, errFar) {
			continue
		}
		if failures++; errors.Is(err, errUseless) || blob.IsPermanent(err) || failures == tries {
			break
		}
		if !pause.For(ctx, about(firstPause<<(failures-1))) {
			return
		}
	}
	for _, i := range items {
		r.leave(i)
	}
}

// about returns a time from half of d to one and a half.
func about(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// open fetches items by one request for the data, and returns how many of them
// need no other one. All is done with them when it returns.
func (r *run) open(ctx context.Context, items []item) (done int, err error) {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := r.Data(sctx, items[0].at)
	if err != nil {
		return 0, err
	}
	r.count.streams.Add(1)
	if a, ok := s.(Answered); ok && !r.Local {
		r.Line.answered(a.FirstByte())
	}
	f := &flow{run: r, s: s, pos: items[0].at, items: items, horizon: newHorizon()}
	if !r.Local {
		f.gate = gate{line: r.Line, urgent: r.urgent, grant: f.unread}
	}
	f.workers.SetLimit(workers)
	done, err = f.consume(ctx)
	f.horizon.clear(done)
	cancel()
	s.Close()
	_ = f.workers.Wait() // they return no errors
	f.horizon.clear(0)
	f.drops.flush(0, 0)
	return done, err
}

// flow is one request for the data.
type flow struct {
	*run
	s       Stream
	pos     int64 // in the data, of what is read next
	items   []item
	horizon *horizon
	gate    gate
	// workers may wait, as any reader, for what is expected, and so keep it from
	// coming: for as long as any reader does (Line.within).
	workers errgroup.Group
	scrap   []byte
	drops   drops
}

// unread returns how many bytes of the data can be read without asking for more
// than was in flight, at least 1, for one read of whatever comes.
func (f *flow) unread() int {
	n := 0
	if u, ok := f.s.(Buffered); ok {
		n = u.Unread()
	}
	return max(n, 1)
}

// consume hands items to the workers as they arrive and returns how many it did.
func (f *flow) consume(ctx context.Context) (int, error) {
	for k, i := range f.items {
		if f.wrong.Load() >= maxWrong {
			return k, errUseless
		}
		if !f.trusted(i) {
			f.horizon.end(k)
			f.leave(i)
			continue
		}
		if f.present(i.Extent) {
			f.horizon.end(k)
			f.skip(SkippedPresent, i.Size)
			continue
		}
		if err := f.skipTo(ctx, i.at); err != nil {
			return k, err
		}
		need := 2*i.Size + i.Stored
		if !f.room.TryAcquire(min(need, memory)) {
			f.Line.interrupted()
			if err := f.room.Acquire(ctx, min(need, memory)); err != nil {
				return k, err
			}
		}
		stored := make([]byte, i.Stored)
		if err := f.read(ctx, stored); err != nil {
			f.room.Release(min(need, memory))
			return k, err
		}
		f.workers.Go(func() error {
			defer f.room.Release(min(need, memory))
			f.deliver(ctx, k, stored)
			return nil
		})
	}
	return len(f.items), nil
}

// trusted reports whether nothing that was staged for the layer of an item was
// found wrong.
func (r *run) trusted(i item) bool {
	return !r.Targets[i.Layer].Stage.Rejected()
}

// skipTo reads over what is not needed before an offset of the data.
func (f *flow) skipTo(ctx context.Context, at int64) error {
	if n := at - f.pos; n > f.Line.reopenCost() && !f.Local || n > memory {
		return errFar
	}
	if f.scrap == nil && f.pos < at {
		f.scrap = make([]byte, scrapSize)
	}
	for f.pos < at {
		if err := f.read(ctx, f.scrap[:min(at-f.pos, scrapSize)]); err != nil {
			return err
		}
	}
	return nil
}

// read fills p with what comes next, if nothing else goes first.
func (f *flow) read(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		if err := f.gate.pass(ctx); err != nil {
			return err
		}
		window := minWindow
		if !f.Local {
			window = f.Line.share()
			f.s.SetWindow(window)
		}
		f.horizon.extend(f.run, f.items, f.pos+int64(window), f.Line.within(window))
		n, err := f.s.Read(p[:min(len(p), max(window/8, leastPiece), mostPiece)])
		p, f.pos = p[n:], f.pos+int64(n)
		f.count.received.Add(int64(n))
		f.gate.passed(n)
		if !f.Local && n > 0 {
			f.Line.arrived(n)
		}
		if len(p) == 0 {
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = blob.Permanent(io.ErrUnexpectedEOF) // they are shorter than the plan says
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver compares the data of item k with its sum and has them verified and
// cached.
func (f *flow) deliver(ctx context.Context, k int, stored []byte) {
	i := f.items[k]
	t := f.Targets[i.Layer]
	defer f.horizon.end(k)
	p, err := i.Unpack(stored)
	if err != nil || sha256.Sum256(p) != i.Sum {
		f.wrong.Add(1)
		f.skip(SkippedCorrupt, i.Size)
		f.leave(i)
		return
	}
	before := t.Stage.Rejected()
	t.Stage.Put(i.Off, p)
	f.horizon.end(k)
	err = f.readThrough(ctx, i)
	f.drops.add(func() { t.Stage.Drop(i.Off, i.Size) }, i.Size)
	if before != t.Stage.Rejected() {
		f.skip(SkippedCorrupt, i.Size)
	}
	switch {
	case err == nil:
		f.arrived(i)
	case ctx.Err() == nil:
		f.leave(i)
	}
}

// readThrough reads an item, so that whatever lies between Blob and Stage verifies
// and caches it.
func (r *run) readThrough(ctx context.Context, i item) error {
	buf := scratch.Borrow(int(i.Size))
	defer scratch.Return(buf)
	b := r.Targets[i.Layer].Blob
	if i.Off == 0 && i.Size > 1 {
		// The first read of the start of a layer takes in a little more, while
		// it does not know its chunk table (chunks.Verify): that would be a
		// request for what nobody staged.
		if err := blob.ReadFull(ctx, b, (*buf)[1:], 1); err != nil {
			return err
		}
	}
	return blob.ReadFull(ctx, b, *buf, i.Off)
}
