package replay

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
)

// watchFor is how long after the begin of a replay it is noted what is read.
const watchFor = 10 * time.Minute

// Use is a blob.Blob at the top of a layer's decorators that notes which extents
// of replays are read, and when. While there are none, a read costs it one look.
type Use struct {
	blob.Blob
	now atomic.Pointer[[]watch]
	mu  sync.Mutex // held to replace what now points at
}

// watch is the marks of one replay, by offset.
type watch struct {
	marks   []*mark
	expires time.Time
}

// mark is an extent that a replay is to fetch.
type mark struct {
	off, end int64
	o        Observer
	count    *counters
	arrived  atomic.Int64 // Unix nanoseconds, 0: not yet
	used     atomic.Bool
}

// NewUse returns b watched.
func NewUse(b blob.Blob) *Use { return &Use{Blob: b} }

// came notes that an extent is there.
func (m *mark) came(now time.Time) {
	if m != nil {
		m.arrived.Store(now.UnixNano())
	}
}

// watch adds the marks of a replay.
func (u *Use) watch(marks []*mark) {
	slices.SortFunc(marks, func(a, b *mark) int { return int(a.off - b.off) })
	u.mu.Lock()
	defer u.mu.Unlock()
	var now []watch
	if old := u.now.Load(); old != nil {
		now = *old
	}
	now = slices.DeleteFunc(slices.Clone(now), func(w watch) bool { return time.Now().After(w.expires) })
	now = append(now, watch{marks, time.Now().Add(watchFor)})
	u.now.Store(&now)
}

// ReadAt implements blob.ReaderAt.
func (u *Use) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if now := u.now.Load(); now != nil && blob.PriorityOf(ctx) == blob.Demand {
		u.read(now, off, off+int64(len(p)))
	}
	return u.Blob.ReadAt(ctx, p, off)
}

// read notes a read of [off, end).
func (u *Use) read(now *[]watch, off, end int64) {
	at := time.Now()
	expired := 0
	for _, w := range *now {
		if at.After(w.expires) {
			expired++
			continue
		}
		i, _ := slices.BinarySearchFunc(w.marks, off, func(m *mark, off int64) int {
			if m.end <= off {
				return -1
			}
			return 1
		})
		for ; i < len(w.marks) && w.marks[i].off < end; i++ {
			w.marks[i].read(at)
		}
	}
	if expired == len(*now) {
		u.now.CompareAndSwap(now, nil)
	}
}

func (m *mark) read(at time.Time) {
	if m.used.Load() || m.used.Swap(true) {
		return
	}
	if n := m.end - m.off; m.arrived.Load() == 0 {
		m.count.missed.add(n)
		m.o.Missed(n)
	} else {
		m.count.used.add(n)
		m.o.Used(n, at.Sub(time.Unix(0, m.arrived.Load())))
	}
}

// Present implements blob.Presence.
func (u *Use) Present(off, n int64) bool { return blob.Present(u.Blob, off, n) }

// Discard implements blob.Discarder.
func (u *Use) Discard(off, n int64) { blob.Discard(u.Blob, off, n) }

// Reject implements blob.Rejecter.
func (u *Use) Reject(origin string) { blob.Reject(u.Blob, origin) }
