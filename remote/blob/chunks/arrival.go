package chunks

import (
	"context"
	"sync/atomic"

	"github.com/reprise-containers/reprise/remote/blob"
)

// followFrom is the number of bytes from which on a read is verified while it
// arrives: hashing a megabyte takes as long as it takes to arrive at 10 Gbit/s.
const followFrom = 64 << 10

// arrival is a read under way on a goroutine of its own, which ends with it.
type arrival struct {
	p       []byte
	off     int64
	origins *blob.Origins

	end    atomic.Int64  // how many bytes at the start of p are said to have arrived
	astray atomic.Bool   // a report did not go on where the one before ended
	more   chan struct{} // has something if end has grown
	done   chan struct{} // closed when the read has ended

	n   int // of the read, once it is done
	err error

	bad   []leaf // what follow found wrong
	whole int    // how many bytes it looked at
}

// begin starts to read p at off. Nobody may touch p, or let go of it, before the
// arrival is done. Reads under the context returned report to its origins.
func (v *verified) begin(ctx context.Context, p []byte, off int64) (context.Context, *arrival) {
	a := &arrival{p: p, off: off, more: make(chan struct{}, 1), done: make(chan struct{})}
	ctx, a.origins = blob.WithArrivals(ctx, a.arrived)
	go func() {
		defer close(a.done)
		a.n, a.err = v.Blob.ReadAt(ctx, p, off)
	}()
	return ctx, a
}

// arrived takes the report of the source. What is wrong with reports costs time
// and no more: see finish.
func (a *arrival) arrived(off int64, n int) {
	at := off - a.off
	if at+int64(n) > int64(len(a.p)) || !a.end.CompareAndSwap(at, at+int64(n)) {
		a.astray.Store(true)
		return
	}
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// follow hashes the leaves of p, which are those of s, as they arrive, and
// returns when the read has ended.
func (a *arrival) follow(s span) {
	for {
		select {
		case <-a.more:
			bad, n := s.checkSome(a.p[a.whole:a.end.Load()], a.off+int64(a.whole))
			a.bad, a.whole = append(a.bad, bad...), a.whole+n
		case <-a.done:
			return
		}
	}
}

// finish verifies what follow did not get to, and reads again what is wrong. It
// returns how many bytes of p are verified.
//
// What follow looked at counts only if the source reported each byte once and
// in order, and the read returned all of them. Else p may have been written
// again behind follow's back, and is verified from its start.
func (v *verified) finish(ctx context.Context, a *arrival, s span) (int, error) {
	if a.astray.Load() || int64(a.n) < a.end.Load() {
		a.bad, a.whole = nil, 0
	}
	rest, n := s.check(a.p[a.whole:a.n], a.off+int64(a.whole))
	done, err := v.settle(ctx, a.p, a.off, append(a.bad, rest...), a.origins)
	if err != nil {
		return done, err
	}
	return a.whole + n, within(a.n, len(a.p), a.err)
}
