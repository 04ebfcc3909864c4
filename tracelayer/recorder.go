package tracelayer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/reprise-containers/reprise/remote/blob"
)

// DefaultRecords is how many records a Recorder keeps if nobody chose: 24 MiB.
const DefaultRecords = 1 << 20

// recorderBlock is how many records are allocated at once: a list that grew by
// copying would now and then make a reader wait.
const recorderBlock = 4096

// Recorder collects the reads of layers in memory, in the order in which they
// end. Its methods may be called in parallel.
type Recorder struct {
	limit   int
	stopped atomic.Bool

	mu      sync.Mutex
	blocks  []Trace // all full but the last
	records int
	dropped int
}

// RecorderStats is a snapshot of a Recorder.
type RecorderStats struct {
	Records int // that Stop returns, or did before Release
	Dropped int // reads beyond the limit
}

// NewRecorder returns a Recorder of at most limit records, DefaultRecords if
// limit is 0 or less.
func NewRecorder(limit int) *Recorder {
	if limit <= 0 {
		limit = DefaultRecords
	}
	return &Recorder{limit: limit}
}

// Layer returns stream, which is the uncompressed LSMT stream of layer i from
// the bottom, with its reads recorded until Stop: those that delivered all they
// were asked for. A read that equals the one of the layer recorded before it is
// not recorded again. The result has the name and the optional abilities of
// stream.
func (r *Recorder) Layer(i int, stream blob.ReaderAt) blob.ReaderAt {
	return &recorded{stream: stream, r: r, layer: uint32(i)}
}

// Stop ends the recording and returns it. Later calls return it again.
func (r *Recorder) Stop() Trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped.Store(true)
	return slices.Concat(r.blocks...)
}

// Release lets go of the records of a recording that has ended: Stop returns none
// from then on. Whoever reads the layers may go on for long.
func (r *Recorder) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped.Store(true)
	r.blocks = nil
}

// Stats returns how much is recorded.
func (r *Recorder) Stats() RecorderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return RecorderStats{Records: r.records, Dropped: r.dropped}
}

// recorded is a layer with its reads recorded.
type recorded struct {
	stream blob.ReaderAt
	r      *Recorder
	layer  uint32
	last   Record // recorded of the layer; belongs to r.mu
}

// ReadAt implements blob.ReaderAt.
func (s *recorded) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := s.stream.ReadAt(ctx, p, off)
	if n == len(p) && n > 0 && !s.r.stopped.Load() {
		s.add(Record{Op: Read, Layer: s.layer, Off: off, Count: int64(n)})
	}
	return n, err
}

func (s *recorded) add(rec Record) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped.Load() || rec == s.last:
		return
	case r.records == r.limit:
		r.dropped++
		return
	}
	if k := len(r.blocks); k == 0 || len(r.blocks[k-1]) == recorderBlock {
		r.blocks = append(r.blocks, make(Trace, 0, min(recorderBlock, r.limit-r.records)))
	}
	k := len(r.blocks) - 1
	r.blocks[k] = append(r.blocks[k], rec)
	r.records++
	s.last = rec
}

// Size implements blob.ReaderAt.
func (s *recorded) Size() int64 { return s.stream.Size() }

// Present implements blob.Presence.
func (s *recorded) Present(off, n int64) bool { return blob.Present(s.stream, off, n) }

// Discard implements blob.Discarder.
func (s *recorded) Discard(off, n int64) { blob.Discard(s.stream, off, n) }

// Reject implements blob.Rejecter.
func (s *recorded) Reject(origin string) { blob.Reject(s.stream, origin) }

// String names what is below in errors.
func (s *recorded) String() string { return blob.Name(s.stream) }
