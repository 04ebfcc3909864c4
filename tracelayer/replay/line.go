package replay

import (
	"context"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
)

const (
	// minWindow is what may be in flight on any line, in bytes.
	minWindow = 64 << 10
	// maxWindow bounds what is: one second of a line of 500 Mbit/s.
	maxWindow = 64 << 20
	// minShare is the least that one of several senders is given.
	minShare = 16 << 10
)

// Line is what is known of the way to a registry host, learned from all that is
// read there, and who uses it. Its methods may be called in parallel.
//
// Readahead estimates a line, too (backstore/readahead), from above the cache, of
// one device, and only what one request costs beside its bytes. What is needed
// here, how much must be in flight for the line to be full, can't be seen there:
// that is measured at the requests and the stream themselves, of all of a host.
type Line struct {
	mu      sync.Mutex
	meter   meter
	reads   map[*reading]struct{} // under way
	changed chan struct{}         // closed when one of them ends, nil if nobody waits
	opened  uint64                // how often the last one that somebody waits for ended
	senders int                   // of prefetched bytes
}

// reading is a read of a blob at the host.
type reading struct {
	ctx   context.Context //nolint:containedctx // its priority may change until it ends
	n     int
	start time.Time
}

// NewLine returns a line of which nothing is known.
func NewLine() *Line {
	return &Line{meter: newMeter(), reads: make(map[*reading]struct{})}
}

// LineStats is a snapshot of a Line.
type LineStats struct {
	// RoundTrip is the shortest time to the first byte of an answer lately, 0
	// if there was none.
	RoundTrip time.Duration
	// Bandwidth is in bytes a second, 0 if unknown.
	Bandwidth float64
	// Window is how many prefetched bytes may be in flight.
	Window int
	// Demand is how many reads that somebody waits for are under way.
	Demand int
}

// Stats returns what is known now.
func (l *Line) Stats() LineStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	demand := 0
	for r := range l.reads {
		if blob.PriorityOf(r.ctx) == blob.Demand {
			demand++
		}
	}
	return LineStats{l.meter.roundTrip(), l.meter.rate, int(l.meter.window), demand}
}

// Watch returns b, a blob of the host, with the line told of its reads. It
// belongs above what queues requests: who waits there waits for the line.
func (l *Line) Watch(b blob.Blob) blob.Blob { return &watched{b, l} }

type watched struct {
	blob.Blob
	l *Line
}

// ReadAt implements blob.ReaderAt.
func (w *watched) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	r := w.l.begin(ctx, len(p))
	n, err := w.Blob.ReadAt(ctx, p, off)
	w.l.end(r, n)
	return n, err
}

// Present implements blob.Presence.
func (w *watched) Present(off, n int64) bool { return blob.Present(w.Blob, off, n) }

// Discard implements blob.Discarder.
func (w *watched) Discard(off, n int64) { blob.Discard(w.Blob, off, n) }

// Reject implements blob.Rejecter.
func (w *watched) Reject(origin string) { blob.Reject(w.Blob, origin) }

func (l *Line) begin(ctx context.Context, n int) *reading {
	r := &reading{ctx, n, time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads[r] = struct{}{}
	return r
}

// end notes the end of a read that delivered n bytes.
func (l *Line) end(r *reading, n int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.reads, r)
	if blob.PriorityOf(r.ctx) == blob.Demand && !l.demandUnderWay() {
		l.opened++
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if n > 0 {
		l.meter.read(n, now.Sub(r.start), now)
	}
}

// patience is how long a read may hold up prefetch: one that takes much longer
// than the line needs for it waits for something else.
func (l *Line) patience(n int) time.Duration {
	return max(time.Second, 4*(l.meter.roundTrip()+l.meter.transfer(int64(n))))
}

// demandUnderWay reports whether there is a read that somebody waits for, and
// that is not held up by something else than the line; l.mu is held.
func (l *Line) demandUnderWay() bool {
	for r := range l.reads {
		if blob.PriorityOf(r.ctx) == blob.Demand && time.Since(r.start) < l.patience(r.n) {
			return true
		}
	}
	return false
}

// pressure is a moment's answer to who goes first.
type pressure struct {
	needed  bool            // somebody waits for a read under way
	opened  uint64          // how often nobody did any more, so far
	changed <-chan struct{} // closed when a read ends; nil if not needed
}

func (l *Line) pressure() pressure {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.demandUnderWay() {
		return pressure{opened: l.opened}
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return pressure{true, l.opened, l.changed}
}

// join counts a sender of prefetched bytes until the function returned is called.
func (l *Line) join() (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.senders++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.senders--
	}
}

// share returns how many bytes each sender may have in flight.
func (l *Line) share() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(max(l.meter.window/int64(max(l.senders, 1)), minShare))
}

// arrived notes that n prefetched bytes came in.
func (l *Line) arrived(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meter.arrived(int64(n), time.Now())
}

// interrupted notes that a sender does not use the line as it could.
func (l *Line) interrupted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meter.reset()
}

// answered notes that the first byte of an answer took that long.
func (l *Line) answered(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meter.answered(took, time.Now())
}

// requestCost returns how many bytes the line could carry in the time that one
// of so many requests under way together costs, beside the bytes it is for.
func (l *Line) requestCost(together int) int64 {
	const headers = 1 << 10 // bytes of a request and the head of its answer
	l.mu.Lock()
	defer l.mu.Unlock()
	return headers + int64(l.meter.rate*l.meter.roundTrip().Seconds())/int64(max(together, 1))
}

// reopenCost returns how many bytes the line could carry in the time that a new
// stream costs: it takes another connection, and what the old one has in flight
// comes for nothing.
func (l *Line) reopenCost() int64 {
	const (
		trips     = 3        // to connect, with TLS, and to ask
		handshake = 32 << 10 // bytes, and what both ends compute meanwhile
	)
	l.mu.Lock()
	window := l.meter.window
	l.mu.Unlock()
	return window + trips*l.requestCost(1) + handshake
}

// within returns how long a reader waits for what should be in flight in a window
// of so many bytes: what the line needs for a request of his own, which comes
// after what is in flight, and a little more. Whatever a plan or the data are, no
// read takes much longer for them.
func (l *Line) within(window int) time.Duration {
	const (
		little = 100 * time.Millisecond // a busy machine's
		most   = time.Second            // for what is in flight, on a line that seems dead
	)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meter.roundTrip() + min(l.meter.transfer(int64(window)), most) + little
}
