package blob

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Stage is a Blob some of whose bytes are there before anybody reads them,
// because they came on another way than by its own requests: see Put. It belongs
// below whatever verifies the blob, which is not told the difference.
//
// A read of bytes that were put is served from memory. One that lies in what is
// expected (Expect) waits for it. Everything else goes on to the blob below.
type Stage struct {
	passthrough
	origin string

	busy     atomic.Int32 // held plus expected: 0 is the common case
	waiting  atomic.Int32 // reads that wait for what is expected
	rejected atomic.Int64 // calls of Reject that were about the stage

	mu       sync.Mutex
	held     []staged // few enough to search
	expected []*expectation
	waiters  []*stageWaiter
}

// staged is bytes that were put.
type staged struct {
	off int64
	p   []byte
}

func (s staged) end() int64 { return s.off + int64(len(s.p)) }

// expectation is a range that somebody said would be put.
type expectation struct{ off, end int64 }

// stageWaiter is a read that waits. Its buffer is filled under Stage.mu.
type stageWaiter struct {
	off  int64
	p    []byte
	done chan struct{} // closed once nothing of it is expected any more
	gap  gap           // what is missing then
}

// gap is bytes [off, end) that a read lacks.
type gap struct{ off, end int64 }

// NewStage returns b with room for bytes from elsewhere. origin is what they are
// reported to Origins as: who finds them wrong has them forgotten by rejecting it
// and reads on from b.
func NewStage(b Blob, origin string) *Stage {
	return &Stage{passthrough: passthrough{b}, origin: origin}
}

// Put makes [off, off+len(p)) bytes be served from p, until Drop. It keeps p,
// which nobody may change any more.
func (s *Stage) Put(off int64, p []byte) {
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, staged{off, p})
	s.busy.Add(1)
	s.wake()
}

// Drop forgets one Put of n bytes at off, if it was not forgotten before.
func (s *Stage) Drop(off, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.held, func(h staged) bool { return h.off == off && int64(len(h.p)) == n })
	if i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
		s.busy.Add(-1)
	}
}

// Expect says that [off, off+n) bytes are on their way: reads that lie in there
// wait for a Put until cancel is called, which may be done more than once.
func (s *Stage) Expect(off, n int64) (cancel func()) {
	e := &expectation{off, off + n}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected = append(s.expected, e)
	s.busy.Add(1)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.expected, e); i >= 0 {
			s.expected = slices.Delete(s.expected, i, i+1)
			s.busy.Add(-1)
			s.wake()
		}
	}
}

// Waiting returns how many reads wait for what is expected.
func (s *Stage) Waiting() int { return int(s.waiting.Load()) }

// Rejections returns how often bytes that were put were found wrong.
func (s *Stage) Rejections() int64 { return s.rejected.Load() }

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
	origins.Served(off, from, s.origin)
	if from < to {
		n, err := s.Blob.ReadAt(ctx, p[from:to], missing.off)
		if n < to-from {
			return from + n, err
		}
	}
	origins.Served(off+int64(to), len(p)-to, s.origin)
	return len(p), end
}

// fill copies what was put, or is put in time, into p and returns the one range
// that includes all that is missing, which starts and ends within p.
func (s *Stage) fill(ctx context.Context, p []byte, off int64) (gap, error) {
	s.mu.Lock()
	missing := s.copyTo(p, off)
	if !s.expects(missing) {
		s.mu.Unlock()
		return missing, nil
	}
	w := &stageWaiter{off: off, p: p, done: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()

	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-w.done:
		return w.gap, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, w); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	return gap{}, ctx.Err()
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
		if h := &s.held[i]; h.off <= off && off < h.end() {
			return h
		}
	}
	return nil
}

// expects reports whether all that is missing, which is something, is on its
// way or there; s.mu is held.
func (s *Stage) expects(missing gap) bool {
	if missing.off >= missing.end {
		return false
	}
	for at := missing.off; at < missing.end; {
		next := at
		if h := s.covering(at); h != nil {
			next = h.end()
		}
		for _, e := range s.expected {
			if e.off <= at && at < e.end {
				next = max(next, e.end)
			}
		}
		if next == at {
			return false
		}
		at = next
	}
	return true
}

// wake lets reads go on that have what they wait for, or wait for nothing any
// more; s.mu is held.
func (s *Stage) wake() {
	s.waiters = slices.DeleteFunc(s.waiters, func(w *stageWaiter) bool {
		w.gap = s.copyTo(w.p, w.off)
		if s.expects(w.gap) {
			return false
		}
		close(w.done)
		return true
	})
}

// Reject implements Rejecter: the stage forgets all that was put if origin is its
// own.
func (s *Stage) Reject(origin string) {
	if origin != s.origin {
		s.passthrough.Reject(origin)
		return
	}
	s.rejected.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy.Add(int32(-len(s.held)))
	s.held = nil
}

// Present implements Presence. What was put does not count: it may be wrong, and
// goes.
func (s *Stage) Present(off, n int64) bool { return s.passthrough.Present(off, n) }
