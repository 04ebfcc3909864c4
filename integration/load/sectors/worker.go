package sectors

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// worker loads one region.
type worker struct {
	load  *Load
	id    uint32
	first int64 // sector
	n     int64
	rand  *rand.Rand
	buf   []byte

	busy atomic.Int32 // the Kind in progress + 1, 0 for none

	mu      sync.Mutex // protects what follows
	log     []op       // by sequence number; that of 0 is what was there first
	acked   uint32     // all operations up to this one were acknowledged
	flushed uint32     // all up to this one are durable
	last    []uint32   // of each sector the last acknowledged operation
	durable []uint32   // of each sector the one that is durable
}

func newWorker(l *Load, id uint32, first, n int64) *worker {
	return &worker{
		load: l, id: id, first: first, n: n,
		rand:    rand.New(rand.NewPCG(l.seed, uint64(id))),
		buf:     aligned(mostWrite * Size),
		log:     []op{{Zero, uint32(first), uint32(n)}},
		last:    make([]uint32, n),
		durable: make([]uint32, n),
	}
}

// run does one operation after the other until ctx ends. What fails after
// that may or may not have been done.
func (w *worker) run(ctx context.Context, d Disk) error {
	for ctx.Err() == nil {
		o, seq := w.begin()
		err := w.do(d, o, seq)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("worker %d, operation %d, %s of sectors %d+%d: %w", w.id, seq, o.kind, o.sector, o.n, err)
		}
		w.acknowledge(o, seq)
	}
	return nil
}

// begin notes what is done next.
func (w *worker) begin() (op, uint32) {
	o := choose(w.rand, uint32(w.first), uint32(w.n))
	w.mu.Lock()
	w.log = append(w.log, o)
	seq := uint32(len(w.log) - 1)
	w.mu.Unlock()
	w.busy.Store(int32(o.kind) + 1)
	return o, seq
}

func (w *worker) do(d Disk, o op, seq uint32) error {
	defer w.busy.Store(0)
	off, n := int64(o.sector)*Size, int64(o.n)*Size
	switch o.kind {
	case Flush:
		return d.Flush()
	case Discard:
		return d.Discard(off, n)
	case Zero:
		return d.Zero(off, n)
	}
	p := w.buf[:n]
	for i := range int64(o.n) {
		stamp(p[i*Size:][:Size], w.load.seed, w.id, seq, int64(o.sector)+i)
	}
	return d.WriteAt(p, off)
}

func (w *worker) acknowledge(o op, seq uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = seq
	w.load.counts[o.kind].Add(1)
	if o.kind != Flush {
		for i := range o.n {
			w.last[int64(o.sector-uint32(w.first)+i)] = seq
		}
		return
	}
	for _, done := range w.log[w.flushed+1 : seq] {
		if done.kind != Flush {
			at := int64(done.sector) - w.first
			copy(w.durable[at:at+int64(done.n)], w.last[at:])
		}
	}
	w.flushed = seq
}

// floor returns what a disk answers for: after the loss of power, or else.
func (w *worker) floor(power bool) floor {
	w.mu.Lock()
	defer w.mu.Unlock()
	if power {
		return floor{w.flushed, append([]uint32(nil), w.durable...)}
	}
	return floor{w.acked, append([]uint32(nil), w.last...)}
}

// adopt takes what was found on a disk for what is durable on it.
func (w *worker) adopt(found []uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	copy(w.last, found)
	copy(w.durable, found)
	w.acked = uint32(len(w.log) - 1)
	w.flushed = w.acked
}
