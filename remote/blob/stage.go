package blob

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience is by what factor a background read, until somebody waits for it, waits
// longer for what is expected: to ask for it twice costs more than time.
const patience = 10

// Stage is a Blob some of whose bytes are there before anybody reads them,
// because they came on another way than by its own requests: see Put. It belongs
// below whatever verifies the blob, which is not told the difference.
//
// A read of bytes that were put is served from memory. One that lies in what is
// expected (Expect) waits for it, for as long as the expectation says and no
// longer. Everything else goes on to the blob below.
//
// Who puts bytes is believed until some are found wrong: from the first call of
// Reject on, the stage takes nothing any more, and is the blob below.
type Stage struct {
	passthrough
	origin string

	busy    atomic.Int32 // held plus expected: 0 is the common case
	waiting atomic.Int32 // reads that wait for what is expected
	closed  atomic.Bool  // what was put was found wrong; set under mu

	mu       sync.Mutex
	held     []staged       // by offset; few enough to search
	expected []*expectation // by offset
	waiters  []*stageWaiter
}

// gap is bytes [off, end) of the blob.
type gap struct{ off, end int64 }

func (g gap) overlaps(o gap) bool { return g.off < o.end && o.off < g.end }

// staged is bytes that were put.
type staged struct {
	gap
	p []byte
}

// expectation is a range that somebody said would be put, within some time.
type expectation struct {
	gap
	within time.Duration
}

// stageWaiter is a read that waits. Its buffer is filled under Stage.mu.
type stageWaiter struct {
	gap
	p       []byte
	done    chan struct{} // closed once nothing of it is expected any more
	missing gap           // what is missing then
}

// NewStage returns b with room for bytes from elsewhere. origin is what they are
// reported to Origins as: who finds them wrong ends that by rejecting it, and
// reads on from b.
func NewStage(b Blob, origin string) *Stage {
	return &Stage{passthrough: passthrough{b}, origin: origin}
}

// Put makes [off, off+len(p)) bytes be served from p, until Drop, unless the
// stage was rejected. It keeps p, which nobody may change any more.
func (s *Stage) Put(off int64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 || s.closed.Load() {
		return
	}
	h := staged{gap{off, off + int64(len(p))}, p}
	i, _ := slices.BinarySearchFunc(s.held, off, func(h staged, off int64) int { return cmp.Compare(h.off, off) })
	s.held = slices.Insert(s.held, i, h)
	s.busy.Add(1)
	s.wake(h.gap)
}

// Drop forgets one Put of n bytes at off, if it was not forgotten before.
func (s *Stage) Drop(off, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.held, func(h staged) bool { return h.gap == gap{off, off + n} })
	if i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
		s.busy.Add(-1)
	}
}

// Expect says that [off, off+n) bytes are on their way: a read that lies in there
// waits for a Put, until cancel is called, which may be done more than once, or
// for the time within, a Background read ten times as long. If one waited so long
// in vain, nothing else does: the expectation ends.
func (s *Stage) Expect(off, n int64, within time.Duration) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return func() {}
	}
	e := &expectation{gap{off, off + n}, within}
	i, _ := slices.BinarySearchFunc(s.expected, off, func(e *expectation, off int64) int { return cmp.Compare(e.off, off) })
	s.expected = slices.Insert(s.expected, i, e)
	s.busy.Add(1)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.expected, e); i >= 0 {
			s.expected = slices.Delete(s.expected, i, i+1)
			s.busy.Add(-1)
			s.wake(e.gap)
		}
	}
}

// Waiting returns how many reads wait for what is expected.
func (s *Stage) Waiting() int { return int(s.waiting.Load()) }

// Rejected reports whether bytes that were put were found wrong: nothing is
// taken any more.
func (s *Stage) Rejected() bool { return s.closed.Load() }

// ReadAt implements ReaderAt.
func (s *Stage) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if s.busy.Load() == 0 {
		return s.Blob.ReadAt(ctx, p, off)
	}
	p, end := Clip(s.Blob, p, off)
	if len(p) == 0 {
		return 0, end
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	missing, err := s.fill(ctx, p, off)
	if err != nil {
		return 0, err
	}
	from, to := int(missing.off-off), int(missing.end-off)
	origins := OriginsOf(ctx)
	origins.Staged(off, from, s.origin)
	if from < to {
		n, err := s.Blob.ReadAt(ctx, p[from:to], missing.off)
		if n < to-from {
			return from + n, err
		}
	}
	origins.Staged(off+int64(to), len(p)-to, s.origin)
	return len(p), end
}

// fill copies what was put, or is put in time, into p and returns the one range
// that includes all that is missing, which starts and ends within p.
func (s *Stage) fill(ctx context.Context, p []byte, off int64) (gap, error) {
	s.mu.Lock()
	w := &stageWaiter{gap: gap{off, off + int64(len(p))}, p: p}
	w.missing = s.copyTo(p, off)
	if !s.expects(w.missing) {
		s.mu.Unlock()
		return w.missing, nil
	}
	w.done = make(chan struct{})
	s.waiters = append(s.waiters, w)
	within := s.within(w.missing)
	s.mu.Unlock()

	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if w.wait(ctx, within) {
		return w.missing, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiters, w)
	if i < 0 { // it came just now
		return w.missing, ctx.Err()
	}
	s.waiters = slices.Delete(s.waiters, i, i+1)
	if err := ctx.Err(); err != nil {
		return gap{}, err
	}
	w.missing = s.copyTo(p, off)
	s.giveUp(w.missing)
	return w.missing, nil
}

// wait waits until w is done and reports whether it is, or not within the time
// that there is, or before ctx ended.
func (w *stageWaiter) wait(ctx context.Context, within time.Duration) (done bool) {
	raised := Raised(ctx)
	t := time.NewTimer(within)
	defer t.Stop()
	if PriorityOf(ctx) == Background {
		t.Reset(patience * within)
	}
	for {
		select {
		case <-w.done:
			return true
		case <-t.C:
			return false
		case <-ctx.Done():
			return false
		case <-raised:
			raised = nil
			t.Reset(within)
		}
	}
}

// within returns how long a read that lacks missing waits; s.mu is held.
func (s *Stage) within(missing gap) (longest time.Duration) {
	for _, e := range s.expected {
		if e.overlaps(missing) {
			longest = max(longest, e.within)
		}
	}
	return longest
}

// giveUp ends the expectations of what a read waited for too long; s.mu is held.
func (s *Stage) giveUp(missing gap) {
	before := len(s.expected)
	ended := missing
	s.expected = slices.DeleteFunc(s.expected, func(e *expectation) bool {
		if !e.overlaps(missing) {
			return false
		}
		ended.off, ended.end = min(ended.off, e.off), max(ended.end, e.end)
		return true
	})
	s.busy.Add(int32(len(s.expected) - before))
	s.wake(ended)
}

// copyTo copies what is held into p; s.mu is held.
func (s *Stage) copyTo(p []byte, off int64) (missing gap) {
	missing = gap{off, off + int64(len(p))}
	for at := off; at < missing.end; {
		h := s.covering(at)
		if h == nil {
			missing.off = at
			break
		}
		at += int64(copy(p[at-off:], h.p[at-h.off:]))
		missing.off = at
	}
	for missing.end > missing.off {
		h := s.covering(missing.end - 1)
		if h == nil {
			break
		}
		from := max(h.off, missing.off)
		copy(p[from-off:missing.end-off], h.p[from-h.off:])
		missing.end = from
	}
	return missing
}

// covering returns what was put that includes the byte at off; s.mu is held.
func (s *Stage) covering(off int64) *staged {
	for i := range s.held {
		if h := &s.held[i]; h.off <= off && off < h.end {
			return h
		}
	}
	return nil
}

// expects reports whether all that is missing, which is something, is on its
// way or there; s.mu is held. It is one pass over both, however small their
// pieces are.
func (s *Stage) expects(missing gap) bool {
	if missing.off >= missing.end || len(s.expected) == 0 {
		return false
	}
	at, e, h := missing.off, 0, 0
	for at < missing.end {
		switch {
		case e < len(s.expected) && s.expected[e].off <= at:
			at = max(at, s.expected[e].end)
			e++
		case h < len(s.held) && s.held[h].off <= at:
			at = max(at, s.held[h].end)
			h++
		default:
			return false
		}
	}
	return true
}

// wake lets reads of what changed go on that have what they wait for, or wait for
// nothing any more; s.mu is held.
func (s *Stage) wake(changed gap) {
	s.waiters = slices.DeleteFunc(s.waiters, func(w *stageWaiter) bool {
		if !w.overlaps(changed) {
			return false
		}
		w.missing = s.copyTo(w.p, w.off)
		if s.expects(w.missing) {
			return false
		}
		close(w.done)
		return true
	})
}

// Reject implements Rejecter: if origin is its own, the stage forgets all that was
// put or is expected, and takes nothing any more. What one piece was wrong of, be
// it by accident or not, the next ones may be, too: and who reads on must not
// meet them again and again.
func (s *Stage) Reject(origin string) {
	if origin != s.origin {
		s.passthrough.Reject(origin)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	s.held, s.expected = nil, nil
	s.busy.Store(0)
	s.wake(gap{0, s.Size()})
}

// Present implements Presence. What was put does not count: it may be wrong, and
// goes.
func (s *Stage) Present(off, n int64) bool { return s.passthrough.Present(off, n) }
