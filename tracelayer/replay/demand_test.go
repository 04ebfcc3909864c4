package replay_test

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// stepped is a stream that delivers what it is told to.
type stepped struct {
	*stream
	allow chan int
	left  int
	read  *atomic.Int64
}

func (s *stepped) Read(p []byte) (int, error) {
	for s.left == 0 {
		select {
		case n, ok := <-s.allow:
			if !ok {
				n = 1 << 30
			}
			s.left = n
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
	n, err := s.r.Read(p[:min(len(p), s.left)])
	s.left -= n
	s.read.Add(int64(n))
	return n, err
}

// begin starts a replay whose stream is stepped, and returns once it is open.
func begin(t *testing.T, w *world) (s *stepped, end func() replay.Stats) {
	t.Helper()
	s = &stepped{allow: make(chan int), read: new(atomic.Int64)}
	opened := make(chan struct{})
	j := w.job(func(st *stream) replay.Stream {
		if s.stream != nil {
			t.Errorf("a second stream, from %d on", st.off)
			return st
		}
		s.stream = st
		close(opened)
		return s
	})
	done := make(chan replay.Stats, 1)
	go func() {
		st, err := replay.Run(t.Context(), j)
		if err != nil {
			t.Error(err)
		}
		done <- st
	}()
	<-opened
	return s, func() replay.Stats {
		close(s.allow)
		return <-done
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 5000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s never happens", what)
}

// A read of what is in flight waits for it and is no request; one of what comes
// later is.
func TestInFlight(t *testing.T) {
	w := newWorld(t, 600, true)
	s, end := begin(t, w)
	l := w.layers[0]
	read := func(k int) chan error {
		e := w.plan.Extents[k]
		done := make(chan error, 1)
		go func() { done <- blob.ReadFull(t.Context(), l.target.Blob, make([]byte, e.Size), e.Off) }()
		return done
	}
	s.allow <- int(w.plan.Extents[0].Size) + leaf
	until(t, "the first extent", func() bool {
		e := w.plan.Extents[1]
		return blob.Present(l.target.Blob, e.Off, e.Size)
	})
	before := w.requests()
	near, far := read(4), read(len(w.plan.Extents)-1)
	if err := <-far; err != nil {
		t.Error(err)
	}
	until(t, "a read that waits", func() bool { return l.target.Stage.Waiting() == 1 })
	if n := w.requests() - before; n != 1 {
		t.Errorf("%d requests for what is far ahead", n)
	}
	s.allow <- 4 * leaf
	if err := <-near; err != nil {
		t.Error(err)
	}
	if n := w.requests() - before; n != 1 {
		t.Errorf("%d requests, one of them for what was in flight", n-1)
	}
	st := end()
	if st.Missed.Extents != 2 || st.Used.Extents != 0 || len(w.missed) != 2 {
		t.Errorf("%+v", st)
	}
	e := w.plan.Extents[10]
	for range 2 { // once is counted
		if _, err := l.target.Blob.ReadAt(t.Context(), make([]byte, 10), e.Off+5); err != nil {
			t.Error(err)
		}
	}
	if len(w.used) != 1 || w.used[0] != e.Size {
		t.Errorf("uses %v", w.used)
	}
	w.check(t)
}

// A stream that delivers nothing for long keeps nobody waiting.
func TestStalledStream(t *testing.T) {
	w := newWorld(t, 300, true)
	s, end := begin(t, w)
	e := w.plan.Extents[3]
	if err := blob.ReadFull(t.Context(), w.layers[0].target.Blob, make([]byte, e.Size), e.Off); err != nil {
		t.Error(err)
	}
	if n := s.read.Load(); n != 0 {
		t.Errorf("%d bytes came", n)
	}
	end()
	w.check(t)
}

// A plan that has last what verifies the rest makes readers wait for it, and with
// them what is to bring it. That ends.
func TestTableLast(t *testing.T) {
	w := newWorld(t, 300, true)
	extents := w.plan.Extents
	w.plan.Extents, w.data = nil, nil
	for _, e := range append(extents[1:40:40], extents[0]) {
		w.add(t, 0, e.Off, e.Size)
	}
	var readers sync.WaitGroup
	for _, e := range w.plan.Extents[:39] {
		readers.Go(func() {
			if err := blob.ReadFull(t.Context(), w.layers[0].target.Blob, make([]byte, e.Size), e.Off); err != nil {
				t.Error(err)
			}
		})
	}
	run(t, w.job(nil))
	readers.Wait()
	w.check(t)
}

// While somebody waits for the registry, no more of the stream is read than lay
// here already, and it goes on when he has what he wants.
func TestDemandFirst(t *testing.T) {
	w := newWorld(t, 1000, true, false)
	answer := make(chan struct{})
	w.layers[1].origin.Script(blobtest.Fault{Off: 1, Len: 1, Gate: answer})
	s, end := begin(t, w)
	var demand sync.WaitGroup
	demand.Go(func() {
		if _, err := w.layers[1].target.Blob.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
			t.Error(err)
		}
	})
	until(t, "a read under way", func() bool { return w.line.Stats().Demand == 1 })
	s.allow <- 1 << 20
	time.Sleep(50 * time.Millisecond)
	if n := s.read.Load(); n > 64<<10 {
		t.Errorf("%d bytes were read while somebody waited", n)
	}
	close(answer)
	demand.Wait()
	until(t, "the rest", func() bool { return s.read.Load() == 1<<20 })
	end()
	w.check(t)
}

// Reads one after the other do not keep a replay away for ever.
func TestNoStarvation(t *testing.T) {
	w := newWorld(t, 1000, true, false)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				off := i % 900 * leaf
				_, _ = w.layers[1].target.Blob.ReadAt(t.Context(), make([]byte, 100), off)
				blob.Discard(w.layers[1].target.Blob, off, leaf)
			}
		})
	}
	st := run(t, w.job(nil))
	close(stop)
	readers.Wait()
	if st.Failed.Extents != 0 || st.Received < int64(len(w.data)) {
		t.Errorf("%+v", st)
	}
}

// What is there already is not read again if it is much, and what the line can
// carry meanwhile is cheaper than a new request if it is little.
func TestSkipPresent(t *testing.T) {
	w := newWorld(t, 3000, true)
	n := len(w.plan.Extents)
	for _, e := range w.plan.Extents[n/10 : 9*n/10] {
		if err := blob.ReadFull(t.Context(), w.layers[0].target.Blob, make([]byte, e.Size), e.Off); err != nil {
			t.Fatal(err)
		}
	}
	e := w.plan.Extents[n/20]
	if err := blob.ReadFull(t.Context(), w.layers[0].target.Blob, make([]byte, e.Size), e.Off); err != nil {
		t.Fatal(err)
	}
	before := w.requests()
	st := run(t, w.job(nil))
	if st.Streams != 2 || st.Received > int64(len(w.data))/2 || w.requests() != before {
		t.Errorf("%d requests, %+v of %d bytes", w.requests()-before, st, len(w.data))
	}
	w.check(t)
}

// Two replays at one host share what may be in flight, and both end.
func TestTwoReplays(t *testing.T) {
	w := newWorld(t, 900, true)
	other := newWorld(t, 900, true)
	other.line = w.line
	var both sync.WaitGroup
	for _, w := range []*world{w, other} {
		both.Go(func() {
			j := w.job(func(s *stream) replay.Stream {
				s.r = slow{s.r}
				return s
			})
			run(t, j)
		})
	}
	both.Wait()
	w.check(t)
	other.check(t)
	if a, b := w.streams[0].window, other.streams[0].window; min(a, b) > 48<<10 {
		t.Errorf("windows of %d and %d bytes", a, b)
	}
}

// slow is a reader that takes its time.
type slow struct{ io.Reader }

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.Reader.Read(p)
}
