package replay_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
	"github.com/reprise-containers/reprise/tracelayer"
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

// A read of what is in flight waits for it and is no request; one of what comes
// later is.
func TestInFlight(t *testing.T) { synctest.Test(t, testInFlight) }

func testInFlight(t *testing.T) {
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
	synctest.Wait()
	if e := w.plan.Extents[1]; !blob.Present(l.target.Blob, e.Off, e.Size) {
		t.Error("the first extent is not there")
	}
	before := w.requests()
	near, far := read(4), read(len(w.plan.Extents)-1)
	if err := <-far; err != nil {
		t.Error(err)
	}
	synctest.Wait()
	if n := l.target.Stage.Waiting(); n != 1 {
		t.Errorf("%d reads wait", n)
	}
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
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, true)
		s, end := begin(t, w)
		w.readBefore(t, w.plan.Extents[3], 5*time.Second)
		if n := s.read.Load(); n != 0 {
			t.Errorf("%d bytes came", n)
		}
		end()
		w.check(t)
	})
}

// readBefore reads an extent and fails the test if that takes longer than limit,
// by the clock of a bubble.
func (w *world) readBefore(t *testing.T, e tracelayer.Extent, limit time.Duration) {
	t.Helper()
	begin, p := time.Now(), make([]byte, e.Size)
	err := blob.ReadFull(t.Context(), w.layers[e.Layer].target.Blob, p, e.Off)
	if err != nil || !bytes.Equal(p, w.layers[e.Layer].data[e.Off:e.Off+e.Size]) {
		t.Errorf("reading %d bytes at %d: wrong, or %v", e.Size, e.Off, err)
	}
	if took := time.Since(begin); took > limit {
		t.Errorf("reading %d bytes at %d took %v", e.Size, e.Off, took)
	}
}

// trickle is a stream whose bytes come one after the other, after the first n.
type trickle struct {
	*stream
	n int
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.n == 0 {
		time.Sleep(50 * time.Millisecond)
		return s.stream.Read(p[:1])
	}
	n, err := s.stream.Read(p[:min(s.n, len(p))])
	s.n -= n
	return n, err
}

// A stream that delivers too little to be worth waiting for keeps nobody waiting,
// whatever is known of the line.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, true)
		ctx, cancel := context.WithCancel(t.Context())
		j := w.job(func(s *stream) replay.Stream { return &trickle{s, int(w.plan.Extents[0].Size)} })
		done := make(chan error)
		go func() {
			_, err := replay.Run(ctx, j)
			done <- err
		}()
		synctest.Wait()
		for _, e := range w.plan.Extents[1:8] {
			w.readBefore(t, e, 2*time.Second)
		}
		cancel()
		<-done
	})
}

// What was expected when something was found wrong is expected no more: nobody
// waits for it, neither a reader nor the replay itself.
func TestRejectedWhileExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, true)
		w.plan.Extents, w.data = w.plan.Extents[:1], w.data[:w.plan.Extents[0].Stored]
		w.add(t, 0, 10*leaf, leaf/2)
		wrong := w.layers[0].data[20*leaf:][:leaf]
		wrong[7] ^= 1
		w.add(t, 0, 20*leaf, leaf)
		wrong[7] ^= 1
		for k := range int64(8) {
			w.add(t, 0, (30+k)*leaf, leaf)
		}
		w.add(t, 0, 10*leaf+leaf/2, leaf/2+leaf) // what verifies the first
		s, end := begin(t, w)
		for _, e := range w.plan.Extents[:3] {
			s.allow <- int(e.Stored)
		}
		synctest.Wait()
		if !w.layers[0].target.Stage.Rejected() {
			t.Error("nothing was found wrong")
		}
		w.readBefore(t, w.plan.Extents[len(w.plan.Extents)-1], 2*time.Second)
		st := end()
		if st.Corrupt.Extents == 0 || st.Prefetched.Extents+st.Present.Extents != int64(len(w.plan.Extents)) {
			t.Errorf("%+v", st)
		}
		w.check(t)
	})
}

// Very many very small extents, in any order, cost a reader no more than others.
func TestTinyExtents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, true)
		w.plan.Extents, w.data = w.plan.Extents[:1], w.data[:w.plan.Extents[0].Stored]
		for off := int64(10 * leaf); off > 0; off-- {
			w.add(t, 0, off, 1)
		}
		s, end := begin(t, w)
		s.allow <- int(w.plan.Extents[0].Stored)
		synctest.Wait()
		w.readBefore(t, tracelayer.Extent{Off: 2 * leaf, Size: 8 * leaf}, 2*time.Second)
		end()
		w.check(t)
	})
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
	synctest.Test(t, func(t *testing.T) {
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
		synctest.Wait()
		if n := w.line.Stats().Demand; n != 1 {
			t.Errorf("%d reads are under way", n)
		}
		s.allow <- 1 << 20
		synctest.Wait()
		if n := s.read.Load(); n > 64<<10 {
			t.Errorf("%d bytes were read while somebody waited", n)
		}
		close(answer)
		demand.Wait()
		synctest.Wait()
		if n := s.read.Load(); n != 1<<20 {
			t.Errorf("%d bytes were read then", n)
		}
		end()
		w.check(t)
	})
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
func TestTwoReplays(t *testing.T) { synctest.Test(t, testTwoReplays) }

func testTwoReplays(t *testing.T) {
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
